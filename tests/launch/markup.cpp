#include "tests/launch/markup.h"

#include <algorithm>
#include <cctype>

namespace detente::test {
namespace {

class Reader {
  public:
    explicit Reader(const std::string& text) : text_(text) {}

    Markup read() {
        if (text_.starts_with("<!DOCTYPE html>\n")) at_ = 16;
        while (at_ < text_.size() && markup_.error.empty()) {
            if (text_[at_] == '<') {
                tag();
            } else {
                const std::string piece = characters('<');
                for (auto& open : open_) open.text += piece;
            }
        }
        if (markup_.error.empty() && !open_.empty()) fail("not closed: " + open_.back().name);
        return std::move(markup_);
    }

  private:
    void fail(const std::string& why) {
        if (!markup_.error.empty()) return;
        markup_.error = why + " near \"" + text_.substr(at_ > 40 ? at_ - 40 : 0, 90) + "\"";
    }
    std::string name() {
        const std::size_t begin = at_;
        while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 ||
                                      text_[at_] == '-' || text_[at_] == ':')) {
            ++at_;
        }
        if (at_ == begin) fail("a name was expected");
        return text_.substr(begin, at_ - begin);
    }
    // Up to `end`, entities resolved.
    std::string characters(char end) {
        std::string out;
        while (at_ < text_.size() && text_[at_] != end) {
            const auto byte = static_cast<unsigned char>(text_[at_]);
            if (byte == '<') fail("a bare '<'");
            if (byte < 0x20 && byte != '\n' && byte != '\t') fail("a control character");
            if (byte != '&') {
                out += text_[at_++];
                continue;
            }
            const std::size_t semicolon = text_.find(';', at_);
            const std::string entity = text_.substr(at_, semicolon - at_ + 1);
            static const std::map<std::string, char> known = {
                {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&#39;", '\''}};
            const auto found = known.find(entity);
            if (found == known.end()) {
                fail("an unknown entity");
                return out;
            }
            out += found->second;
            at_ = semicolon + 1;
        }
        return out;
    }
    void tag() {
        ++at_;
        if (text_[at_] == '/') {
            ++at_;
            const std::string closed = name();
            if (open_.empty() || open_.back().name != closed) return fail("</" + closed + "> here");
            end_of_tag();
            return close();
        }
        Markup::Element element{name(), {}, {}};
        while (at_ < text_.size() && text_[at_] == ' ' && text_[at_ + 1] != '/') {
            ++at_;
            const std::string key = name();
            if (text_.compare(at_, 2, "=\"") != 0) return fail("an attribute without quotes");
            at_ += 2;
            if (!element.attributes.emplace(key, characters('"')).second) fail("twice: " + key);
            ++at_;
        }
        const bool empty = text_.compare(at_, 3, " />") == 0;
        if (empty) at_ += 2;
        end_of_tag();
        open_.push_back(std::move(element));
        if (empty) close();
    }
    void end_of_tag() {
        if (at_ >= text_.size() || text_[at_] != '>') return fail("'>' was expected");
        ++at_;
    }
    void close() {
        markup_.elements.push_back(std::move(open_.back()));
        open_.pop_back();
    }

    const std::string& text_;
    std::size_t at_ = 0;
    std::vector<Markup::Element> open_;
    Markup markup_;
};

}  // namespace

std::vector<std::string> Markup::texts_of(const std::string& name) const {
    std::vector<std::string> texts;
    for (const Element& element : elements) {
        if (element.name == name) texts.push_back(element.text);
    }
    return texts;
}

std::size_t Markup::count(const std::string& name) const {
    return static_cast<std::size_t>(std::count_if(
        elements.begin(), elements.end(), [&](const Element& e) { return e.name == name; }));
}

Markup read_markup(const std::string& document) { return Reader(document).read(); }

}  // namespace detente::test
