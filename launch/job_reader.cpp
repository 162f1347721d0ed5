#include "launch/job_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "common/nearest_name.h"
#include "launch/job_checks.h"
#include "launch/job_values.h"

namespace detente {
namespace {

constexpr std::size_t kMostMistakesShown = 10;

std::vector<std::string> split(const std::string& path) {
    std::vector<std::string> parts(1);
    for (const char c : path) {
        if (c == '.') {
            parts.emplace_back();
        } else {
            parts.back() += c;
        }
    }
    return parts;
}

std::optional<std::size_t> entry_number(const std::string& text) {
    std::size_t number = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
    if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
    return number;
}

// "rule.for.0.name" → "rule.for.name": as the table of keys has it.
std::string without_entries(const std::string& path) {
    std::string result;
    for (const std::string& part : split(path)) {
        if (!entry_number(part)) result = join_path(result, part);
    }
    return result;
}

bool holds_text(const Key& key) {
    Job scratch;
    scratch.tasks.resize(1);
    scratch.masks.resize(1);
    scratch.rule_for.resize(1);
    scratch.policy_for.resize(1);
    scratch.simulate.faults.resize(1);
    scratch.simulate.changes.resize(1);
    const Slot slot = key.slot(scratch, 0);
    return std::holds_alternative<std::string*>(slot) || std::holds_alternative<ChoiceSlot>(slot);
}

// What --set's value says as TOML, under the key "v"; a bare word is a text.
toml::table value_of(const std::string& path, const std::string& text) {
    const Key* key = find_key(without_entries(path));
    const bool as_text = key != nullptr && holds_text(*key);
    try {
        toml::table parsed = toml::parse("v = " + text);
        if (parsed.size() == 1 && (!as_text || parsed.get("v")->is_string())) return parsed;
    } catch (const toml::parse_error&) {
        // No TOML value: the text as it stands.
    }
    return toml::table{{"v", text}};
}

// Child tables of `table`, by the last part of their path.
NameList children_of(const Table& table) {
    NameList names;
    const std::string prefix = table.path.empty() ? "" : table.path + ".";
    for (const Table& other : job_tables()) {
        if (other.path.size() <= prefix.size() || !other.path.starts_with(prefix)) continue;
        const std::string rest = other.path.substr(prefix.size());
        if (rest.find('.') == std::string::npos) names.push_back(rest);
    }
    return names;
}

// Where a name without its table is a key of another table, and only of one.
const Table* only_home_of(std::string_view name) {
    const Table* home = nullptr;
    for (const Table& table : job_tables()) {
        for (const Key& key : table.keys) {
            if (key.name != name) continue;
            if (home != nullptr) return nullptr;
            home = &table;
        }
    }
    return home;
}

}  // namespace

void JobReader::complain(const std::string& path, const std::string& sentence) {
    mistakes_.push_back(fmt::format("{}: {}: {}", place_of(path), path, sentence));
}

void JobReader::note_place(const std::string& path, const toml::source_region& source) {
    places_[path] = source.begin.line > 0 ? fmt::format("{}:{}", file_, source.begin.line) : file_;
}

std::string JobReader::place_of(const std::string& path) const {
    if (const auto found = overrides_.find(path); found != overrides_.end()) return found->second;
    if (const auto found = places_.find(path); found != places_.end()) return found->second;
    const std::size_t dot = path.rfind('.');  // not in the file: at least its table may be
    if (dot != std::string::npos) return place_of(path.substr(0, dot));
    return file_;
}

void JobReader::override_with(const std::string& assignment) {
    const std::string shown = "--set " + assignment;
    const std::size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) {
        mistakes_.push_back(fmt::format("{}: must be KEY=VALUE, like --set workers=2", shown));
        return;
    }
    const std::string path = assignment.substr(0, equals);
    const std::vector<std::string> parts = split(path);
    toml::node* at = &tree_;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
        if (toml::array* list = at->as_array()) {
            const auto entry = entry_number(parts[i]);
            if (!entry || *entry >= list->size()) {
                mistakes_.push_back(
                    fmt::format("{}: '{}' must be the number of an entry, from 0 to {}", shown,
                                parts[i], list->size() - 1));
                return;
            }
            at = list->get(*entry);
        } else if (toml::table* table = at->as_table()) {
            if (entry_number(parts[i])) {
                mistakes_.push_back(
                    fmt::format("{}: there is no entry {}: the file has no such repeated table",
                                shown, parts[i]));
                return;
            }
            if (!table->contains(parts[i])) table->insert(parts[i], toml::table{});
            at = table->get(parts[i]);
        }
    }
    toml::table* table = at->as_table();
    if (table == nullptr) {
        mistakes_.push_back(fmt::format(
            "{}: '{}' has no keys below it; entries of a repeated table are numbered from 0, like "
            "rule.for.0.learning_rate",
            shown, path.substr(0, path.rfind('.'))));
        return;
    }
    toml::table value = value_of(path, assignment.substr(equals + 1));
    if (const toml::node* before = table->get(parts.back())) {
        if (parameter_text(*before) != parameter_text(*value.get("v"))) replaced_.insert(path);
    }
    table->insert_or_assign(parts.back(), std::move(*value.get("v")));
    overrides_[path] = shown;
}

void JobReader::refuse_unknown(const Table& table, const std::string& path, const toml::key& key,
                               std::size_t entry) {
    const std::string name(key.str());
    const std::string full = join_path(path, name);
    note_place(full, key.source());
    for (const auto& [set_path, shown] : overrides_) {  // a table that only --set made
        if (set_path.starts_with(full + ".")) places_[full] = shown;
    }
    NameList valid;
    for (const Key& known : table.keys) valid.push_back(known.name);
    for (const std::string& child : children_of(table)) valid.push_back(child);
    if (table.known_parameters) {
        for (const ExplainedParameter& known : table.known_parameters(job_, entry)) {
            valid.push_back(known.name);
        }
    }
    const Table* home = only_home_of(name);
    if (home != nullptr && home->path != table.path && !home->repeated) {
        complain(full,
                 fmt::format("no such key here; it belongs in {}: did you mean '{}'?",
                             home->path.empty() ? "the top of the file" : "[" + home->path + "]",
                             join_path(home->path, name)));
        return;
    }
    complain(full, fmt::format("no such key; did you mean '{}'? Valid {}: {}",
                               join_path(table.path, nearest_name(name, valid)),
                               table.path.empty() ? "at the top" : "in [" + table.path + "]",
                               fmt::join(valid, ", ")));
}

void JobReader::read_parameter(const Table& table, const std::string& path, const std::string& name,
                               const toml::node& node, std::size_t entry) {
    const std::string full = join_path(path, name);
    auto text = parameter_text(node);
    // Methods take one number per task: preference = [1, 2].
    if (!text && table.path == "conflict") text = number_list_text(node);
    if (!text) {
        complain(full, "must be a text, a number, true or false, found " + describe(node));
        return;
    }
    table.parameters(job_, entry).emplace_back(name, *text);
}

void JobReader::read_table(const Table& table, const toml::table* node, const std::string& path,
                           std::size_t entry) {
    if (node == nullptr) return;
    for (const Key& key : table.keys) {
        const toml::node* value = node->get(key.name);
        if (value == nullptr) continue;
        const std::string full = join_path(path, key.name);
        note_place(full, value->source());
        if (full == "worker.push_pull") push_pull_given_ = true;
        const auto complaint = assign(key, key.slot(job_, entry), *value);
        if (complaint) complain(full, *complaint);
    }
    // --set of another policy or method leaves the file's parameters of the old one behind.
    const std::string chooses =
        table.keys.empty() || !table.parameters ? "" : join_path(path, table.keys.front().name);
    const bool switched = overrides_.contains(chooses);
    const bool replaced = replaced_.contains(chooses);  // also those that both happen to have
    std::vector<ExplainedParameter> known;
    if (table.known_parameters) known = table.known_parameters(job_, entry);
    const NameList children = children_of(table);
    for (const auto& [key, value] : *node) {
        const std::string name(key.str());
        const std::string full = join_path(path, name);
        const auto is_name = [&name](const auto& other) { return other.name == name; };
        if (std::any_of(table.keys.begin(), table.keys.end(), is_name)) continue;
        if (std::find(children.begin(), children.end(), name) != children.end()) continue;
        const bool allowed =
            table.parameters &&
            (!table.known_parameters || std::any_of(known.begin(), known.end(),
                                                    [&](const auto& p) { return p.name == name; }));
        if (replaced && !overrides_.contains(full)) continue;
        if (allowed) {
            note_place(full, value.source());
            read_parameter(table, path, name, value, entry);
        } else if (!switched || overrides_.contains(full)) {
            refuse_unknown(table, path, key, entry);
        }
    }
}

// [[a.b]] and what lies inside each of its entries. Inner tables ([rule.for.schedule]) are single.
void JobReader::read_entries(const Table& table) {
    const toml::node* at = &tree_;
    for (const std::string& part : split(table.path)) {
        const toml::table* parent = at->as_table();
        at = parent == nullptr ? nullptr : parent->get(part);
        if (at == nullptr) return;
    }
    const toml::array* list = at->as_array();
    note_place(table.path, at->source());
    if (list == nullptr || !std::all_of(list->begin(), list->end(), [](const toml::node& element) {
            return element.is_table();
        })) {
        complain(table.path,
                 fmt::format("must be written as [[{}]], found {}", table.path, describe(*at)));
        return;
    }
    for (std::size_t i = 0; i < list->size(); ++i) {
        const toml::table* entry = list->get(i)->as_table();
        const std::string path = fmt::format("{}.{}", table.path, i);
        note_place(path, entry->source());
        const toml::node* first = entry->get(table.keys.front().name);
        table.prepare(job_, first == nullptr ? std::nullopt : first->value<std::string>());
        read_table(table, entry, path, i);
        for (const Key& key : table.keys) {
            if (key.required && !entry->contains(key.name)) {
                complain(join_path(path, key.name),
                         fmt::format("is missing: every [[{}]] needs it", table.path));
            }
        }
        for (const std::string& child : children_of(table)) {
            const toml::node* inner = entry->get(child);
            if (inner == nullptr) continue;
            note_place(join_path(path, child), inner->source());
            if (!inner->is_table()) {
                complain(join_path(path, child), "must be a table, found " + describe(*inner));
            }
            read_table(*find_table(join_path(table.path, child)), inner->as_table(),
                       join_path(path, child), i);
        }
    }
}

Result<Job> JobReader::read() {
    for (const Table& table : job_tables()) {
        if (table.repeated) {
            if (table.prepare) read_entries(table);  // without: read with the entries it lies in
            continue;
        }
        const toml::node* node = &tree_;
        if (!table.path.empty()) {
            for (const std::string& part : split(table.path)) {
                const toml::table* parent = node->as_table();
                node = parent == nullptr ? nullptr : parent->get(part);
                if (node == nullptr) break;
            }
        }
        if (node != nullptr && !table.path.empty()) note_place(table.path, node->source());
        if (node != nullptr && !node->is_table()) {
            complain(table.path,
                     fmt::format("must be a table, [{}], found {}", table.path, describe(*node)));
            continue;
        }
        const toml::table* found = node == nullptr ? nullptr : node->as_table();
        if (table.prepare) {
            const toml::node* first =
                found == nullptr ? nullptr : found->get(table.keys.front().name);
            table.prepare(job_, first == nullptr ? std::nullopt : first->value<std::string>());
        }
        read_table(table, found, table.path, 0);
    }
    if (!push_pull_given_) job_.push_pull = job_.pull_ahead == 0;
    if (job_.model_library.empty() && mistakes_.empty()) {
        complain("model.library",
                 "is missing: name the model library, like library = \"multifashion\" in [model]");
    }
    if (mistakes_.empty()) {
        for (const JobProblem& problem : check_job(job_)) complain(problem.path, problem.sentence);
    }
    if (mistakes_.empty()) {
        complete_parameters(job_);
        return job_;
    }
    const std::size_t shown = std::min(mistakes_.size(), kMostMistakesShown);
    std::string text = fmt::format(
        "{}", fmt::join(mistakes_.begin(), mistakes_.begin() + static_cast<long>(shown), "\n"));
    if (mistakes_.size() > shown) text += fmt::format("\nand {} more", mistakes_.size() - shown);
    return fail(ErrorCode::bad_job, text);
}

}  // namespace detente
