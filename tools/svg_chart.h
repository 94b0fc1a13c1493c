// What:    a line chart as an SVG image.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   never; a chart without points is empty axes.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace coppice::tools {

struct ChartSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x ascending
  bool dashed = false;
  int colour = 0;  // series of one colour belong together
};

struct Chart {
  std::string title, x_label, y_label;
  std::vector<ChartSeries> series;
};

// Both axes begin at 0.
std::string svg_of(const Chart& chart);

}  // namespace coppice::tools
