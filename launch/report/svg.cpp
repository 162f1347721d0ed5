#include "launch/report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

namespace detente {
namespace {

constexpr std::array<std::string_view, 7> kPalette = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                      "#e69f00", "#56b4e9", "#333333"};
constexpr std::array<std::string_view, 4> kDashes = {"", "6 3", "2 3", "8 3 2 3"};
constexpr std::string_view kReplacement = "\xef\xbf\xbd";

// Bytes of the UTF-8 character that begins here, 0 if none does.
std::size_t character_bytes(std::string_view rest) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(rest[i]); };
    const unsigned char first = byte(0);
    std::size_t length = 0;
    if (first < 0x80) {
        length = 1;
    } else if (first >= 0xc2 && first < 0xe0) {
        length = 2;
    } else if (first >= 0xe0 && first < 0xf0) {
        length = 3;
    } else if (first >= 0xf0 && first < 0xf5) {
        length = 4;
    }
    if (length == 0 || length > rest.size()) return 0;
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0U) != 0x80U) return 0;
    }
    if (length == 3) {  // overlong, surrogates, and the two that are no characters
        const unsigned code =
            ((first & 0xfU) << 12U) | ((byte(1) & 0x3fU) << 6U) | (byte(2) & 0x3fU);
        if (code < 0x800 || (code >= 0xd800 && code < 0xe000) || code >= 0xfffe) return 0;
    }
    if (length == 4) {
        const unsigned code = ((first & 7U) << 18U) | ((byte(1) & 0x3fU) << 12U);
        if (code < 0x10000 || code > 0x10ffff) return 0;
    }
    return length;
}

std::string pixels(double value) {
    std::string text = fmt::format("{:.1f}", std::isfinite(value) ? value : 0.0);
    if (text.ends_with(".0")) text.resize(text.size() - 2);
    return text;
}

std::string list_of(const std::vector<Point>& points) {
    std::string text;
    for (const Point& point : points) {
        if (!text.empty()) text += ' ';
        text += pixels(point.x) + "," + pixels(point.y);
    }
    return text;
}

const char* name_of(Anchor anchor) {
    switch (anchor) {
        case Anchor::start:
            return "start";
        case Anchor::middle:
            return "middle";
        case Anchor::end:
            return "end";
    }
    return "start";
}

}  // namespace

std::string escaped(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t length = character_bytes(text.substr(i));
        const char c = text[i];
        const bool control =
            length == 1 && static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t';
        if (length == 0 || control) {
            out += kReplacement;
        } else if (c == '&') {
            out += "&amp;";
        } else if (c == '<') {
            out += "&lt;";
        } else if (c == '>') {
            out += "&gt;";
        } else if (c == '"') {
            out += "&quot;";
        } else if (c == '\'') {
            out += "&#39;";
        } else {
            out += text.substr(i, length);
        }
        i += std::max<std::size_t>(length, 1);
    }
    return out;
}

std::string_view palette(std::size_t i) { return kPalette[i % kPalette.size()]; }
std::string_view dashes(std::size_t i) { return kDashes[(i / kPalette.size()) % kDashes.size()]; }

Svg::Svg(double width, double height, std::string_view label)
    : out_(fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" "
                       "role=\"img\" aria-label=\"{2}\">\n",
                       pixels(width), pixels(height), escaped(label))) {}

void Svg::line(Point from, Point to, std::string_view kind) {
    fmt::format_to(std::back_inserter(out_),
                   "<line class=\"{}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" />\n", kind,
                   pixels(from.x), pixels(from.y), pixels(to.x), pixels(to.y));
}

void Svg::polyline(const std::vector<Point>& points, std::string_view colour,
                   std::string_view dash) {
    if (points.empty()) return;
    if (points.size() == 1) return dot(points.front(), 2, colour);
    fmt::format_to(std::back_inserter(out_),
                   "<polyline class=\"curve\" points=\"{}\" stroke=\"{}\"{} />\n", list_of(points),
                   colour, dash.empty() ? "" : fmt::format(" stroke-dasharray=\"{}\"", dash));
}

void Svg::area(const std::vector<Point>& outline, std::string_view colour) {
    if (outline.size() < 3) return;
    fmt::format_to(std::back_inserter(out_),
                   "<polygon class=\"band\" points=\"{}\" fill=\"{}\" />\n", list_of(outline),
                   colour);
}

void Svg::box(Point corner, double width, double height, std::string_view colour,
              std::string_view tip) {
    fmt::format_to(std::back_inserter(out_),
                   "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"",
                   pixels(corner.x), pixels(corner.y), pixels(std::max(width, 0.0)),
                   pixels(std::max(height, 0.0)), colour);
    out_ += tip.empty() ? " />\n" : fmt::format("><title>{}</title></rect>\n", escaped(tip));
}

void Svg::dot(Point centre, double radius, std::string_view colour, bool hollow) {
    fmt::format_to(std::back_inserter(out_),
                   "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\" stroke=\"{}\" />\n",
                   pixels(centre.x), pixels(centre.y), pixels(radius), hollow ? "#ffffff" : colour,
                   colour);
}

void Svg::text(Point at, std::string_view text, Anchor anchor, std::string_view kind,
               std::string_view colour) {
    fmt::format_to(std::back_inserter(out_),
                   "<text class=\"{}\" x=\"{}\" y=\"{}\" text-anchor=\"{}\"{}>{}</text>\n", kind,
                   pixels(at.x), pixels(at.y), name_of(anchor),
                   colour.empty() ? "" : fmt::format(" style=\"fill:{}\"", colour), escaped(text));
}

void Svg::rotated_text(Point at, std::string_view text, std::string_view kind) {
    fmt::format_to(std::back_inserter(out_),
                   "<text class=\"{0}\" x=\"{1}\" y=\"{2}\" text-anchor=\"middle\" "
                   "transform=\"rotate(-90 {1} {2})\">{3}</text>\n",
                   kind, pixels(at.x), pixels(at.y), escaped(text));
}

std::string Svg::finish() { return std::move(out_) + "</svg>\n"; }

double Scale::at(double value) const {
    const auto placed = [this](double v) {
        return logarithmic ? std::log10(std::max(v, 1e-300)) : v;
    };
    const double width = placed(high) - placed(low);
    const double share = width > 0 ? (placed(value) - placed(low)) / width : 0.5;
    return from + std::clamp(share, -0.01, 1.01) * (to - from);
}

std::vector<double> ticks(double low, double high, std::size_t about, bool logarithmic) {
    std::vector<double> marks;
    if (!(high > low) || !std::isfinite(high - low)) return {low};
    if (logarithmic) {
        const int first = static_cast<int>(std::floor(std::log10(low)));
        const int last = static_cast<int>(std::ceil(std::log10(high)));
        const bool many = last - first > 3;
        for (int power = first; power <= last; ++power) {
            for (const double factor : {1.0, 2.0, 5.0}) {
                const double mark = factor * std::pow(10.0, power);
                if ((factor == 1.0 || !many) && mark >= low * 0.999 && mark <= high * 1.001) {
                    marks.push_back(mark);
                }
            }
        }
        return marks;
    }
    const double rough = (high - low) / static_cast<double>(std::max<std::size_t>(about, 1));
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    double step = 10 * power;
    for (const double factor : {5.0, 2.0, 1.0}) {
        if (factor * power >= rough * 0.999) step = factor * power;
    }
    // A stretch too short to be told apart at this distance from 0 has no marks within.
    if (!(std::max(std::abs(low), std::abs(high)) / step < 1e12)) return {low};
    const auto first = static_cast<long long>(std::ceil(low / step - 1e-9));
    for (long long i = first; static_cast<double>(i) * step <= high + step * 1e-9; ++i) {
        marks.push_back(static_cast<double>(i) * step);
    }
    return marks;
}

std::string shortened(std::string_view text, std::size_t characters) {
    std::size_t seen = 0;
    std::size_t cut = 0;  // where the last character that fits beside "…" ends
    for (std::size_t i = 0; i < text.size(); ++i) {
        if ((static_cast<unsigned char>(text[i]) & 0xc0U) == 0x80U) continue;  // goes on
        if (seen + 1 == characters) cut = i;
        if (++seen > characters) return std::string(text.substr(0, cut)) + "…";
    }
    return std::string(text);
}

std::string short_number(double value) {
    if (!std::isfinite(value)) return "–";
    const double size = std::abs(value);
    if (size >= 1e9) return fmt::format("{:.4g} G", value / 1e9);
    if (size >= 1e6) return fmt::format("{:.4g} M", value / 1e6);
    if (size >= 1e3) return fmt::format("{:.4g} k", value / 1e3);
    if (size >= 1e-3 || size == 0) return fmt::format("{:.4g}", value);
    return fmt::format("{:.2g}", value);
}

}  // namespace detente
