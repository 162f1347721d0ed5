// How Catch prints a Result when an assertion about it fails; included before every test file
// (boost's own operator<< would need every value to be printable).
#pragma once

#include <catch2/catch.hpp>
#include <string>

#include "common/result.h"

template <class T>
struct Catch::StringMaker<boost::system::result<T, detente::Error>> {
    static std::string convert(const boost::system::result<T, detente::Error>& result) {
        if (result.has_value()) return "a value";
        return std::string(detente::name_of(result.error().code)) + ": " + result.error().text;
    }
};
