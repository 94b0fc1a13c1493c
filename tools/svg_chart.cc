#include "svg_chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace coppice::tools {
namespace {

constexpr double kWidth = 860, kHeight = 420;
constexpr double kLeft = 80, kRight = 600, kTop = 46, kBottom = 360;
constexpr const char* kColours[] = {"#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad",
                                    "#d68910", "#16a085", "#7f8c8d", "#2c3e50"};

// Distance between grid lines: 1, 2 or 5 times a power of ten, about five of them.
double grid_step(double most) {
  if (most <= 0) return 1;
  const double rough = most / 5, power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (rough <= factor * power) return factor * power;
  }
  return 10 * power;
}

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", x);
  return text;
}

std::string coordinate(double x) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", x);
  return text;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : std::string(1, c);
  return out;
}

std::string text_at(double x, double y, const std::string& anchor, const std::string& text,
                    const std::string& more = {}) {
  return "<text x=\"" + coordinate(x) + "\" y=\"" + coordinate(y) + "\" text-anchor=\"" + anchor +
         "\"" + more + ">" + escaped(text) + "</text>\n";
}

std::string line(double x1, double y1, double x2, double y2, const std::string& style) {
  return "<line x1=\"" + coordinate(x1) + "\" y1=\"" + coordinate(y1) + "\" x2=\"" +
         coordinate(x2) + "\" y2=\"" + coordinate(y2) + "\" " + style + "/>\n";
}

class Drawing {
 public:
  explicit Drawing(const Chart& chart) : chart_(chart) {
    for (const ChartSeries& series : chart.series) {
      for (const auto& [x, y] : series.points) {
        most_x_ = std::max(most_x_, x);
        most_y_ = std::max(most_y_, y);
      }
    }
    step_x_ = grid_step(most_x_);
    step_y_ = grid_step(most_y_);
    end_y_ = std::max(step_y_, std::ceil(most_y_ / step_y_) * step_y_);
    end_x_ = most_x_ > 0 ? most_x_ : step_x_;
  }

  std::string svg() const {
    std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + number(kWidth) +
                      " " + number(kHeight) +
                      "\" font-family=\"sans-serif\" font-size=\"13\">\n"
                      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
    out += text_at(kLeft, 24, "start", chart_.title, " font-size=\"15\" font-weight=\"bold\"");
    out += axes();
    double legend = kTop + 10;
    for (const ChartSeries& series : chart_.series) {
      out += curve(series);
      out += line(kRight + 16, legend - 4, kRight + 44, legend - 4, style(series));
      out += text_at(kRight + 50, legend, "start", series.name);
      legend += 20;
    }
    return out + "</svg>\n";
  }

 private:
  double at_x(double x) const { return kLeft + x / end_x_ * (kRight - kLeft); }
  double at_y(double y) const { return kBottom - y / end_y_ * (kBottom - kTop); }

  static std::string style(const ChartSeries& series) {
    const auto colour = static_cast<size_t>(series.colour) % std::size(kColours);
    return std::string("fill=\"none\" stroke=\"") + kColours[colour] + "\" stroke-width=\"2\"" +
           (series.dashed ? " stroke-dasharray=\"5 4\"" : "");
  }

  std::string axes() const {
    std::string out;
    const std::string grid = "stroke=\"#dddddd\"", axis = "stroke=\"black\"";
    for (double y = 0; y <= end_y_ * 1.0001; y += step_y_) {
      out += line(kLeft, at_y(y), kRight, at_y(y), grid);
      out += text_at(kLeft - 8, at_y(y) + 4, "end", number(y));
    }
    for (double x = 0; x <= end_x_ * 1.0001; x += step_x_) {
      out += line(at_x(x), kBottom, at_x(x), kBottom + 5, axis);
      out += text_at(at_x(x), kBottom + 20, "middle", number(x));
    }
    out += line(kLeft, kBottom, kRight, kBottom, axis) + line(kLeft, kTop, kLeft, kBottom, axis);
    out += text_at((kLeft + kRight) / 2, kBottom + 42, "middle", chart_.x_label);
    out += text_at(0, 0, "middle", chart_.y_label,
                   " transform=\"translate(20 " + number((kTop + kBottom) / 2) + ") rotate(-90)\"");
    return out;
  }

  std::string curve(const ChartSeries& series) const {
    std::string points, marks;
    for (const auto& [x, y] : series.points) {
      points += (points.empty() ? "" : " ") + coordinate(at_x(x)) + "," + coordinate(at_y(y));
      marks += "<circle cx=\"" + coordinate(at_x(x)) + "\" cy=\"" + coordinate(at_y(y)) +
               "\" r=\"3\" " + style(series) + "/>\n";
    }
    return "<polyline points=\"" + points + "\" " + style(series) + "/>\n" + marks;
  }

  const Chart& chart_;
  double most_x_ = 0, most_y_ = 0, step_x_ = 1, step_y_ = 1, end_x_ = 1, end_y_ = 1;
};

}  // namespace

std::string svg_of(const Chart& chart) { return Drawing(chart).svg(); }

}  // namespace coppice::tools
