// Members of a JSON object that somebody else may have written: a member that is missing or of
// another kind throws BadMember with the end of a sentence. Thrown and caught within one function
// that turns it into a Result naming what was read.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace detente {

struct BadMember {
    std::string text;
};

// Parses a whole object; BadMember: not JSON, or nested deeper than anything of ours.
boost::json::object object_from(std::string_view text);
const boost::json::value& member(const boost::json::object& object, std::string_view key);
const boost::json::object& object_at(const boost::json::object& object, std::string_view key);
const boost::json::array& array_at(const boost::json::object& object, std::string_view key);
std::string text_at(const boost::json::object& object, std::string_view key);
bool flag_at(const boost::json::object& object, std::string_view key);
// A whole number of at least 0.
std::uint64_t count_at(const boost::json::object& object, std::string_view key);
std::uint64_t count_of(const boost::json::value& value, std::string_view what);
double number_at(const boost::json::object& object, std::string_view key);
// null is NaN.
double number_of(const boost::json::value& value, std::string_view what);
std::vector<std::string> texts_at(const boost::json::object& object, std::string_view key);

}  // namespace detente
