// A drawing as inline SVG: shapes in pixels, text escaped. Well-formed as XML too. What it looks
// like beyond colours (fonts, grid lines) is said once, in the page's style sheet (page.cpp).
//
// Thread: one.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace detente {

// For text and attribute values of HTML and SVG. What files hold is never trusted: characters that
// XML forbids, and bytes that are no UTF-8, become U+FFFD.
std::string escaped(std::string_view text);

struct Point {
    double x = 0;
    double y = 0;
};

// Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow, which
// is lost on white. Entry i modulo its length.
std::string_view palette(std::size_t i);
// A dash pattern beside the colour, for those who print in black.
std::string_view dashes(std::size_t i);

enum class Anchor { start, middle, end };

class Svg {
  public:
    // `label` is read out where the drawing cannot be seen.
    Svg(double width, double height, std::string_view label);

    // `kind` is a class of the style sheet: "grid", "axis".
    void line(Point from, Point to, std::string_view kind);
    void polyline(const std::vector<Point>& points, std::string_view colour, std::string_view dash);
    void area(const std::vector<Point>& outline, std::string_view colour);
    // `tip` is shown by browsers when the pointer rests on it.
    void box(Point corner, double width, double height, std::string_view colour,
             std::string_view tip = "");
    void dot(Point centre, double radius, std::string_view colour, bool hollow = false);
    void text(Point at, std::string_view text, Anchor anchor = Anchor::start,
              std::string_view kind = "label", std::string_view colour = "");
    void rotated_text(Point at, std::string_view text, std::string_view kind = "label");

    std::string finish();

  private:
    std::string out_;
};

// A stretch of numbers onto a stretch of pixels.
struct Scale {
    double low = 0;
    double high = 1;
    double from = 0;  // pixel of `low`
    double to = 1;
    bool logarithmic = false;
    double at(double value) const;
};
// Round numbers within [low, high], about so many: steps of 1, 2 or 5 times a power of ten;
// logarithmic: 1, 2 and 5 times each power, or the powers alone where those are many.
std::vector<double> ticks(double low, double high, std::size_t about, bool logarithmic = false);
// At most so many characters; what is cut ends in "…".
std::string shortened(std::string_view text, std::size_t characters);
// "0.25", "1.5 k", "2.5 M"
std::string short_number(double value);

}  // namespace detente
