// One value of a job file: from a TOML node into its slot, and back to text.
#pragma once

#include <toml++/toml.h>

#include <optional>
#include <string>
#include <string_view>

#include "launch/job_keys.h"

namespace detente {

// Puts the node's value into the slot. What is wrong with it, as the end of a sentence that starts
// with the key ("must be …, found …"); nothing if it went in.
std::optional<std::string> assign(const Key& key, const Slot& slot, const toml::node& node);

// The slot's value as TOML: 5, "auto", ["a", "b"], "1MiB".
std::string toml_text(const Key& key, const Slot& slot);
std::string in_quotes(std::string_view text);

// A free parameter (of a policy, an aggregator, a model) from a node; none if it is a table or
// list.
std::optional<std::string> parameter_text(const toml::node& node);
// "1,2.5" from a list of numbers; none if it is none.
std::optional<std::string> number_list_text(const toml::node& node);
// A free parameter as TOML, such that parameter_text() of it is the same text.
std::string toml_parameter(const std::string& text);

// "64KiB", "1 MiB", "2GiB", "512"; none if it is no size, or one above 2^63.
std::optional<std::uint64_t> byte_count(std::string_view text);

// For messages: `the text "8"`, `the number 8`, `a table`.
std::string describe(const toml::node& node);

}  // namespace detente
