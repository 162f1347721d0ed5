#include "launch/strict_reading.h"

#include <fmt/format.h>

#include <cmath>

namespace detente {

namespace json = boost::json;

namespace {

[[noreturn]] void refuse(std::string_view what, const char* wanted) {
    throw BadMember{fmt::format("'{}' must be {}", what, wanted)};
}

}  // namespace

json::object object_from(std::string_view text) {
    json::parse_options options;
    options.max_depth = 16;
    json::error_code failed;
    json::value value =
        json::parse(json::string_view(text.data(), text.size()), failed, {}, options);
    if (failed) throw BadMember{"it is not JSON: " + failed.message()};
    if (!value.is_object()) throw BadMember{"it must be a JSON object"};
    return std::move(value.as_object());
}

const json::value& member(const json::object& object, std::string_view key) {
    const json::value* found = object.if_contains(json::string_view(key.data(), key.size()));
    if (found == nullptr) throw BadMember{fmt::format("'{}' is missing", key)};
    return *found;
}

const json::object& object_at(const json::object& object, std::string_view key) {
    const json::object* found = member(object, key).if_object();
    if (found == nullptr) refuse(key, "an object");
    return *found;
}

const json::array& array_at(const json::object& object, std::string_view key) {
    const json::array* found = member(object, key).if_array();
    if (found == nullptr) refuse(key, "a list");
    return *found;
}

std::string text_at(const json::object& object, std::string_view key) {
    const json::string* found = member(object, key).if_string();
    if (found == nullptr) refuse(key, "a text");
    return {found->data(), found->size()};
}

bool flag_at(const json::object& object, std::string_view key) {
    const bool* found = member(object, key).if_bool();
    if (found == nullptr) refuse(key, "true or false");
    return *found;
}

std::uint64_t count_of(const json::value& value, std::string_view what) {
    json::error_code failed;
    const auto count = value.to_number<std::uint64_t>(failed);
    if (failed) refuse(what, "a whole number of at least 0");
    return count;
}

std::uint64_t count_at(const json::object& object, std::string_view key) {
    return count_of(member(object, key), key);
}

double number_of(const json::value& value, std::string_view what) {
    if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();
    json::error_code failed;
    const auto number = value.to_number<double>(failed);
    if (failed) refuse(what, "a number");
    return number;
}

double number_at(const json::object& object, std::string_view key) {
    return number_of(member(object, key), key);
}

std::vector<std::string> texts_at(const json::object& object, std::string_view key) {
    std::vector<std::string> texts;
    for (const json::value& entry : array_at(object, key)) {
        const json::string* text = entry.if_string();
        if (text == nullptr) refuse(key, "a list of texts");
        texts.emplace_back(text->data(), text->size());
    }
    return texts;
}

}  // namespace detente
