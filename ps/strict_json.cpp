#include "ps/strict_json.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <system_error>

namespace detente {
namespace json = boost::json;
namespace {

const json::value& member(const json::object& object, std::string_view key) {
    const json::value* value = object.if_contains(json::string_view(key.data(), key.size()));
    if (value == nullptr) throw BadJson{fmt::format("'{}' is missing", key)};
    return *value;
}

}  // namespace

const json::object& object_of(const json::value& value, std::string_view what) {
    const json::object* object = value.if_object();
    if (object == nullptr) throw BadJson{fmt::format("{} is no JSON object", what)};
    return *object;
}

const json::object& parse_object(std::string_view text, json::value& keeper) {
    boost::system::error_code error;
    keeper = json::parse(json::string_view(text.data(), text.size()), error);
    if (error) throw BadJson{"no JSON: " + error.message()};
    return object_of(keeper, "the whole");
}

const json::array& array_in(const json::object& object, std::string_view key) {
    const json::array* array = member(object, key).if_array();
    if (array == nullptr) throw BadJson{fmt::format("'{}' is no list", key)};
    return *array;
}

std::string text_in(const json::object& object, std::string_view key) {
    const json::string* text = member(object, key).if_string();
    if (text == nullptr) throw BadJson{fmt::format("'{}' is no text", key)};
    return {text->data(), text->size()};
}

std::uint64_t integer_in(const json::object& object, std::string_view key) {
    return integer_of(member(object, key), key);
}

std::uint32_t small_integer_in(const json::object& object, std::string_view key) {
    const std::uint64_t integer = integer_in(object, key);
    if (integer > std::numeric_limits<std::uint32_t>::max()) {
        throw BadJson{fmt::format("'{}' is {}, expected 32 bits", key, integer)};
    }
    return static_cast<std::uint32_t>(integer);
}

std::uint64_t integer_of(const json::value& value, std::string_view what) {
    const json::string* text = value.if_string();
    std::uint64_t integer = 0;
    if (text != nullptr) {
        const char* end = text->data() + text->size();
        const auto [stopped, error] = std::from_chars(text->data(), end, integer);
        if (error == std::errc() && stopped == end && text->size() > 0) return integer;
    }
    throw BadJson{fmt::format("expected '{}' to be a whole number in quotes, found {}", what,
                              json::serialize(value))};
}

}  // namespace detente
