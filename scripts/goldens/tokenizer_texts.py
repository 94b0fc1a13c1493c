"""Texts for the tokenizer goldens: sentences of many scripts and, from a seed, what breaks tokenizers."""

import random
import unicodedata

SENTENCES = r"""
All human beings are born free and equal in dignity and rights. They're endowed with reason; it's ours, we'll keep it, I'd say, you've seen, I'm sure he'd've DON'T.
Tous les êtres humains naissent libres et égaux en dignité et en droits. L'été à Noël, où naît l'œuvre, ça coûte 12,50 €.
Alle Menschen sind frei und gleich an Würde und Rechten geboren. Straße, Größe, Übermut, Fußgängerübergänge.
Todos los seres humanos nacen libres e iguales en dignidad. ¿Cuánto cuesta? ¡Mañana, señor Núñez!
Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Não, coração, ações.
Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Perché, città, è così.
Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Zażółć gęślą jaźń.
Všichni lidé rodí se svobodní a sobě rovní. Příliš žluťoučký kůň úpěl ďábelské ódy.
Minden emberi lény szabadon születik. Árvíztűrő tükörfúrógép.
Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. İstanbul'da ılık ığdır.
Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.
Все люди рождаются свободными и равными в своём достоинстве и правах. Съешь ещё этих мягких французских булок.
Всі люди народжуються вільними і рівними у своїй гідності та правах. Ґанок, їжак, об'єкт.
Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια. Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία.
Բոլոր մարդիկ ծնվում են ազատ ու հավասար՝ իրենց արժանապատվությամբ։
ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით.
כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. שָׁלוֹם עֲלֵיכֶם
يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. ١٢٣٤٥ السَّلَامُ عَلَيْكُمْ
تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت با هم برابرند. ۱۲۳۴
تمام انسان آزاد اور حقوق و عزت کے اعتبار سے برابر پیدا ہوئے ہیں۔
सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है। १२३४ क्षत्रिय ज़िन्दगी
সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে। ১২৩
ਸਾਰਾ ਮਨੁੱਖੀ ਪਰਿਵਾਰ ਆਪਣੀ ਮਹਿਮਾ, ਸ਼ਾਨ ਅਤੇ ਹੱਕਾਂ ਦੇ ਪੱਖੋਂ ਜਨਮ ਤੋਂ ਹੀ ਆਜ਼ਾਦ ਹੈ।
પ્રતિષ્ઠા અને અધિકારોની દૃષ્ટિએ સર્વ માનવો જન્મથી સ્વતંત્ર અને સમાન હોય છે.
மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர். கொக்கு, பௌர்ணமி
ప్రతిపత్తిస్వత్వముల విషయమున మానవులెల్లరును జన్మతః స్వతంత్రులును సమానులును నగుదురు.
ಎಲ್ಲಾ ಮಾನವರೂ ಸ್ವತಂತ್ರರಾಗಿಯೇ ಜನಿಸಿದ್ದಾರೆ. ಹಾಗೂ ಘನತೆ ಮತ್ತು ಹಕ್ಕುಗಳಲ್ಲಿ ಸಮಾನರಾಗಿದ್ದಾರೆ.
മനുഷ്യരെല്ലാവരും തുല്യാവകാശങ്ങളോടും അന്തസ്സോടും സ്വാതന്ത്ര്യത്തോടുംകൂടി ജനിച്ചിട്ടുള്ളവരാണ്.
සියලු මනුෂ්‍යයෝ නිදහස්ව උපත ලබා ඇත. ගරුත්වයෙන් හා අයිතිවාසිකම්වලින් සමාන වෙති.
มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ๑๒๓
ມະນຸດທຸກຄົນເກີດມາມີສິດເສລີພາບ ແລະ ສະເໝີໜ້າກັນໃນທາງກຽດຕິສັກ
လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် လည်းကောင်း မွေးဖွားလာသူများ ဖြစ်သည်။
មនុស្សទាំងអស់ កើតមកមានសេរីភាព និងសមភាព ក្នុងផ្នែកសេចក្ដីថ្លៃថ្នូរ
འགྲོ་བ་མིའི་རིགས་རྒྱུད་ཡོངས་ལ་སྐྱེས་ཙམ་ཉིད་ནས་ཆེ་མཐོངས་དང༌།
የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው። ፩፪፫
人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。价格是12元。
人人生而自由,在尊嚴和權利上一律平等。他們賦有理性和良心。
すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。ガギグゲゴ ぱぴぷぺぽ ｶﾞｷﾞ
모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 훈민정음 한글
Kai ʻano like nā kānaka a pau i hānau ʻia. ꦱꦧꦼꦤ꧀ꦮꦺꦴꦁ ᎾᏍᎩ ᏂᎦᏓ ᐃᓅᔪᓕᒫᑦ ᠬᠦᠮᠦᠨ ⵉⵎⴷⴰⵏⵏ
for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];  // x\n}\nreturn sum / (double)n;\n
def f(x: int) -> str:\n    \"\"\"Doc.\"\"\"\n    return f"{x!r:>10}" if x % 2 else '\\n'\n
{"id": 17, "name": "Röntgen", "tags": ["a", "b"], "price": 1299.00, "ok": true, "none": null}
https://www.example.org/path/to?q=1&r=%20x#frag user.name+tag@example.co.uk 192.168.0.1 2024-02-29T23:59:60Z
The price is $1,234,567.89 (−5 %), i.e. 3.14159e-10 × 10²; ½ + ¾ = 1¼; Ⅷ, ①②③, x₁₂, 100000000000, 007.
""".strip("\n").split("\n")
SENTENCES = [s.replace("\\n", "\n").replace("\\t", "\t") for s in SENTENCES]

EMOJI = "😀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 🇧🇷 1️⃣ ❤️‍🔥 🧑🏿‍🚀 ☕ ✨ 🫠 🪿 🐦‍⬛ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ⌚︎".split()
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\r", "\x0b", "\x0c", "\u0085", "\u00a0", "\u1680", "\u180e",
          "\u2003", "\u2028", "\u2029", "\u200b", "\u202f", "\u205f", "\u3000", "\ufeff", "\x1c", "\x1f"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'M", "'lL", "'D",
                "\u2019s", "'\u017f", "'", "''s", "'x", "'r", "'v", "'l", "'K", "'\u212a"]
MARKS = "\u0300\u0301\u0302\u0308\u030a\u0315\u0323\u0327\u0328\u0334\u0338\u0345\u0898\u1abf\u1dfa\u064b\u0651" \
        "\u0670\u05b8\u05c1\u093c\u094d\u3099\u309a\u0591\u302a\U0001d165\U000110ba\U00011930\U0001e8d0"
BASES = "aeiouAnsSdDK\u00c5\u1e69\u1ea0\u0626\u0915\u0958\u304b\u30cf\u1100\u1161\u11a8\uac00\u2126\u212b\ufb01\u0344" \
        "\u0f73\u0f71\u0dd9\u0b47\U0001d15e\uf900\U0002f800\U00011935\U00011131\u0344\u1fc1\u0390"


def text_of(rng, words):
    return "".join(rng.choice(words) for _ in range(rng.randint(1, 12)))


def any_char(rng):
    plane = rng.random()
    while True:
        c = rng.randrange(0x3000) if plane < 0.4 else rng.randrange(0x10000) if plane < 0.7 else \
            rng.randrange(0x10000, 0x32400) if plane < 0.95 else rng.randrange(0x110000)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def digits(rng):
    sets = ["0123456789", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９", "²³¹½Ⅷ①", "\U0001e4f0\U00010d41"]
    run = "".join(rng.choice(rng.choice(sets[: rng.randint(1, 6)])) for _ in range(rng.randint(1, 14)))
    return rng.choice(["", " ", "-", "a", "$"]) + run + rng.choice(["", " ", ".", "kg", ",000"])


def spaces(rng):
    runs = [rng.choice(SPACES) * rng.choice([1, 1, 2, 3, 4, 7, 8, 16, 33]) for _ in range(rng.randint(1, 4))]
    words = [rng.choice(["", "a", "Hello", "1", "!", "é", "\u4e2d"]) for _ in range(len(runs) + 1)]
    return "".join(w + r for w, r in zip(words, runs + [""]))


def contraction(rng):
    words = ["I", "we", "They", "don", "x", "", " ", "é", "3", "HE"]
    return "".join(rng.choice(words) + rng.choice(CONTRACTIONS) + rng.choice(["", " ", "!", "s"])
                   for _ in range(rng.randint(1, 4)))


def marks(rng):
    return "".join(rng.choice(BASES) + "".join(rng.choice(MARKS) for _ in range(rng.choice([0, 1, 1, 2, 3, 6])))
                   for _ in range(rng.randint(1, 6)))


def emoji(rng):
    return "".join(rng.choice(EMOJI) + rng.choice(["", "", " ", "x", "!"]) for _ in range(rng.randint(1, 6)))


def control(rng):
    return "".join(chr(rng.choice([rng.randrange(0x20), rng.randrange(0x7f, 0xa0), 0x200e, 0xad, 65])) +
                   rng.choice(["", " ", "b"]) for _ in range(rng.randint(1, 8)))


def punctuation(rng):
    marks_ = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~…—–«»“”‘’、。「」؟¿¡§¶†‡•°±×÷"
    return "".join(rng.choice(marks_) * rng.choice([1, 1, 2, 5]) + rng.choice(["", " ", "\n", "a"])
                   for _ in range(rng.randint(1, 8)))


def sentence(rng):
    s = rng.choice(SENTENCES)
    a = rng.randrange(len(s))
    return rng.choice([str.__str__, str.__str__, str.upper, str.title])(s[a : a + rng.randint(1, 90)])


def mixed(rng):
    parts = [spaces, contraction, digits, emoji, punctuation, sentence]
    return "".join(rng.choice(parts)(rng) for _ in range(rng.randint(2, 4)))


def texts(specials, seed=1):
    """2500 different texts. specials: what is to stand inside some of them."""
    rng = random.Random(seed)

    def special(rng):
        parts = [lambda r: r.choice(specials), lambda r: r.choice(specials), spaces, sentence]
        return "".join(rng.choice(parts)(rng) for _ in range(rng.randint(1, 5)))

    makers = [(sentence, 600), (spaces, 250), (contraction, 150), (digits, 200), (emoji, 120), (marks, 250),
              (control, 120), (punctuation, 150), (special, 350), (mixed, 150),
              (lambda r: text_of(r, [any_char(r) for _ in range(6)]), 200)]
    out = ["", " ", "\n", "a"] + list(SENTENCES) + specials
    for unit, n in [("a", 3000), ("ab", 1500), (" ", 2000), ("\n", 700), ("é", 1000), ("中", 900), ("0", 1200),
                    ("!", 900), ("word", 700), ("\u0301", 500), ("👩‍👧", 150), (" a", 800), ("aA1 ", 400)]:
        out += [unit * n, unit * n + "x", "x" + unit * n + " y"]
    out += [unicodedata.normalize(form, s) for s in SENTENCES[:30] for form in ("NFD", "NFKC")]
    seen = set(out)
    assert len(SENTENCES) > 40
    for maker, count in makers:
        made = 0
        while made < count:
            text = maker(rng)
            if text in seen:
                continue
            seen.add(text)
            out.append(text)
            made += 1
    return out
