// Reading our own JSON (manifests, slice headers) strictly: a member that is missing or of another
// type throws BadJson with a sentence. Thrown and caught within one file's parse function, which
// turns it into a Result that names the path; it never leaves this folder.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <string>
#include <string_view>

namespace detente {

struct BadJson {
    std::string text;
};

const boost::json::object& object_of(const boost::json::value& value, std::string_view what);
const boost::json::object& parse_object(std::string_view text, boost::json::value& keeper);
const boost::json::array& array_in(const boost::json::object& object, std::string_view key);
std::string text_in(const boost::json::object& object, std::string_view key);
// 64-bit integers travel as decimal strings, because JSON's numbers lose them in other programs.
std::uint64_t integer_in(const boost::json::object& object, std::string_view key);
std::uint32_t small_integer_in(const boost::json::object& object, std::string_view key);  // 32 bits
std::uint64_t integer_of(const boost::json::value& value, std::string_view what);

}  // namespace detente
