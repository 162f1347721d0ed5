#include "launch/job_values.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <concepts>

#include "common/nearest_name.h"

namespace detente {
namespace {

using Complaint = std::optional<std::string>;

struct ByteUnit {
    std::string_view name;
    std::uint64_t bytes;
};
constexpr std::array<ByteUnit, 4> kByteUnits = {
    {{"GiB", 1U << 30U}, {"MiB", 1U << 20U}, {"KiB", 1U << 10U}, {"B", 1}}};

std::string byte_text(std::uint64_t bytes) {
    for (const ByteUnit& unit : kByteUnits) {
        if (unit.bytes > 1 && bytes > 0 && bytes % unit.bytes == 0) {
            return fmt::format("{}{}", bytes / unit.bytes, unit.name);
        }
    }
    return std::to_string(bytes);
}

std::string number_text(double value) { return fmt::format("{}", value); }

std::string limits_text(const Limits& limits, std::string_view what) {
    if (std::isinf(limits.highest)) {
        return fmt::format("must be {}, {} or more", what, number_text(limits.lowest));
    }
    return fmt::format("must be {} from {} to {}", what, number_text(limits.lowest),
                       number_text(limits.highest));
}

bool within(const Limits& limits, double value) {
    return std::isfinite(value) && value >= limits.lowest && value <= limits.highest;
}

std::string listed(const NameList& names) { return fmt::format("{}", fmt::join(names, ", ")); }

Complaint not_among(const NameList& valid, const std::string& given) {
    return fmt::format("'{}' is not one of them; did you mean '{}'? Valid: {}", given,
                       nearest_name(given, valid), listed(valid));
}

// A number that TOML wrote as a whole number or as a float.
std::optional<double> real_of(const toml::node& node) {
    if (const auto* whole = node.as_integer()) return static_cast<double>(whole->get());
    if (const auto* real = node.as_floating_point()) return real->get();
    return std::nullopt;
}

struct Assign {
    const Key& key;
    const toml::node& node;

    Complaint wrong(std::string expected) const {
        return fmt::format("{}, found {}", expected, describe(node));
    }
    Complaint operator()(std::string* slot) const {
        const auto* text = node.as_string();
        if (text == nullptr) return wrong("must be a text in quotes");
        if (key.required && text->get().empty()) return "must not be empty";
        if (!key.valid.empty() &&
            std::find(key.valid.begin(), key.valid.end(), text->get()) == key.valid.end()) {
            return not_among(key.valid, text->get());
        }
        *slot = text->get();
        return std::nullopt;
    }
    Complaint operator()(NameList* slot) const {
        static constexpr const char* kExpected = "must be a list of texts like [\"a.*\", \"b\"]";
        if (const auto* one = node.as_string();
            one != nullptr && !key.alone.empty() && one->get() == key.alone) {
            *slot = {key.alone};
            return std::nullopt;
        }
        const auto* list = node.as_array();
        if (list == nullptr) return wrong(kExpected);
        slot->clear();
        for (const toml::node& element : *list) {
            const auto* text = element.as_string();
            if (text == nullptr) {
                return fmt::format("{}, found {} in it", kExpected, describe(element));
            }
            slot->push_back(text->get());
        }
        return std::nullopt;
    }
    Complaint operator()(NumberList* slot) const {
        const std::string expected =
            "must be a list like [1, 2.5]: " + limits_text(key.limits, "each a number").substr(8);
        const auto* list = node.as_array();
        if (list == nullptr) return wrong(expected);
        slot->clear();
        for (const toml::node& element : *list) {
            const auto value = real_of(element);
            if (!value || !within(key.limits, *value)) {
                return fmt::format("{}, found {} in it", expected, describe(element));
            }
            slot->push_back(*value);
        }
        return std::nullopt;
    }
    Complaint operator()(bool* slot) const {
        const auto* flag = node.as_boolean();
        if (flag == nullptr) return wrong("must be true or false");
        *slot = flag->get();
        return std::nullopt;
    }
    template <std::unsigned_integral Whole>
    Complaint operator()(Whole* slot) const {
        const auto* whole = node.as_integer();
        if (whole == nullptr || !within(key.limits, static_cast<double>(whole->get()))) {
            return wrong(limits_text(key.limits, "a whole number"));
        }
        *slot = static_cast<Whole>(whole->get());
        return std::nullopt;
    }
    Complaint operator()(double* slot) const {
        const auto value = real_of(node);
        if (!value || !within(key.limits, *value)) {
            return wrong(limits_text(key.limits, "a number"));
        }
        *slot = *value;
        return std::nullopt;
    }
    Complaint operator()(Nanos* slot) const {
        const auto value = real_of(node);
        if (!value || !within(key.limits, *value)) {
            return wrong(limits_text(key.limits, "a number of seconds"));
        }
        *slot = Nanos(std::llround(*value * 1e9));
        return std::nullopt;
    }
    Complaint operator()(const ByteSlot& slot) const {
        std::optional<std::uint64_t> bytes;
        if (const auto* text = node.as_string()) bytes = byte_count(text->get());
        if (const auto* whole = node.as_integer(); whole != nullptr && whole->get() >= 0) {
            bytes = static_cast<std::uint64_t>(whole->get());
        }
        if (!bytes || !within(key.limits, static_cast<double>(*bytes))) {
            return wrong(fmt::format(
                "must be bytes from {} to {}, as a whole number or a text like \"64KiB\" or "
                "\"1MiB\"",
                byte_text(static_cast<std::uint64_t>(key.limits.lowest)),
                byte_text(static_cast<std::uint64_t>(key.limits.highest))));
        }
        *slot.value = *bytes;
        return std::nullopt;
    }
    Complaint operator()(const ChoiceSlot& slot) const {
        const auto* text = node.as_string();
        if (text == nullptr) return wrong(fmt::format("must be one of {}", listed(key.valid)));
        for (std::size_t i = 0; i < key.valid.size(); ++i) {
            if (key.valid[i] != text->get()) continue;
            slot.set(i);
            return std::nullopt;
        }
        return not_among(key.valid, text->get());
    }
};

struct Write {
    const Key& key;

    std::string operator()(const std::string* slot) const { return in_quotes(*slot); }
    std::string operator()(const NameList* slot) const {
        std::string text;
        for (const std::string& name : *slot) text += (text.empty() ? "" : ", ") + in_quotes(name);
        return "[" + text + "]";
    }
    std::string operator()(const NumberList* slot) const {
        std::string text;
        for (const double number : *slot) text += (text.empty() ? "" : ", ") + number_text(number);
        return "[" + text + "]";
    }
    std::string operator()(const bool* slot) const { return *slot ? "true" : "false"; }
    std::string operator()(const std::uint32_t* slot) const { return std::to_string(*slot); }
    std::string operator()(const std::uint64_t* slot) const { return std::to_string(*slot); }
    std::string operator()(const double* slot) const { return number_text(*slot); }
    std::string operator()(const Nanos* slot) const {
        return number_text(static_cast<double>(slot->count()) / 1e9);
    }
    std::string operator()(const ByteSlot& slot) const {
        const std::string text = byte_text(*slot.value);
        return text.back() == 'B' ? in_quotes(text) : text;
    }
    std::string operator()(const ChoiceSlot& slot) const {
        return in_quotes(key.valid[slot.get()]);
    }
};

}  // namespace

std::optional<std::string> assign(const Key& key, const Slot& slot, const toml::node& node) {
    return std::visit(Assign{key, node}, slot);
}

std::string toml_text(const Key& key, const Slot& slot) { return std::visit(Write{key}, slot); }

std::string in_quotes(std::string_view text) {
    std::string result = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            result += '\\';
            result += c;
        } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
            result += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
        } else {
            result += c;
        }
    }
    return result + "\"";
}

std::optional<std::string> parameter_text(const toml::node& node) {
    if (const auto* text = node.as_string()) return text->get();
    if (const auto* whole = node.as_integer()) return std::to_string(whole->get());
    if (const auto* real = node.as_floating_point()) return number_text(real->get());
    if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
    return std::nullopt;
}

std::optional<std::string> number_list_text(const toml::node& node) {
    const toml::array* list = node.as_array();
    if (list == nullptr || list->empty()) return std::nullopt;
    std::string text;
    for (const toml::node& entry : *list) {
        if (!entry.is_number()) return std::nullopt;
        text += (text.empty() ? "" : ",") + *parameter_text(entry);
    }
    return text;
}

std::string toml_parameter(const std::string& text) {
    if (text == "true" || text == "false") return text;
    std::int64_t whole = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), whole);
    if (parsed.ec == std::errc() && std::to_string(whole) == text) return text;
    double real = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), real);
    const bool is_float = text.find_first_of(".e") != std::string::npos;
    if (read.ec == std::errc() && is_float && std::isfinite(real) && number_text(real) == text) {
        return text;
    }
    return in_quotes(text);
}

std::optional<std::uint64_t> byte_count(std::string_view text) {
    std::uint64_t count = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, count);
    if (parsed.ec != std::errc()) return std::nullopt;
    std::string_view unit(parsed.ptr, static_cast<std::size_t>(end - parsed.ptr));
    while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
    if (unit.empty()) return count;
    for (const ByteUnit& known : kByteUnits) {
        if (unit != known.name) continue;
        if (count > (std::uint64_t{1} << 63U) / known.bytes) return std::nullopt;
        return count * known.bytes;
    }
    return std::nullopt;
}

std::string describe(const toml::node& node) {
    if (const auto* text = node.as_string()) return "the text " + in_quotes(text->get());
    if (const auto value = real_of(node)) return "the number " + number_text(*value);
    if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
    if (node.is_table()) return "a table";
    if (node.is_array()) return "a list";
    return "a date or time";
}

}  // namespace detente
