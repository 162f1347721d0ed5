// A strict reader of XML, for tests that look at reports: tags balance, attributes are quoted and
// come once, '<', '&' and entities are as they must be, ids of nothing fetched.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace detente::test {

struct Markup {
    struct Element {
        std::string name;
        std::map<std::string, std::string> attributes;
        std::string text;  // of itself and all within it, entities resolved
    };
    std::string error;              // empty = well-formed
    std::vector<Element> elements;  // in the order of their ends

    std::vector<std::string> texts_of(const std::string& name) const;
    std::size_t count(const std::string& name) const;
};
Markup read_markup(const std::string& document);

}  // namespace detente::test
