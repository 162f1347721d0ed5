// A Job back to TOML, bare or explained.
#include <fmt/format.h>

#include <algorithm>

#include "launch/job.h"
#include "launch/job_keys.h"
#include "launch/job_values.h"

namespace detente {
namespace {

constexpr std::size_t kLineColumns = 96;

// The job that the same file without a single optional key would have been: for "default …".
Job defaults_for(const Job& job) {
    Job plain;
    if (const auto rule = rule_defaults(job.rule.name)) plain.rule = *rule;
    plain.rule.name = "sgd";
    plain.push_pull = job.pull_ahead == 0;
    plain.tasks.resize(std::max<std::size_t>(1, job.tasks.size()));
    plain.masks.resize(std::max<std::size_t>(1, job.masks.size()));
    plain.policy_for.resize(std::max<std::size_t>(1, job.policy_for.size()));
    plain.simulate.faults.resize(std::max<std::size_t>(1, job.simulate.faults.size()));
    plain.simulate.changes.resize(std::max<std::size_t>(1, job.simulate.changes.size()));
    RuleFor inherited{"", job.rule, job.schedule};
    plain.rule_for.resize(std::max<std::size_t>(1, job.rule_for.size()), inherited);
    for (std::size_t i = 0; i < job.rule_for.size(); ++i) {
        if (job.rule_for[i].rule.name == job.rule.name) continue;
        if (const auto rule = rule_defaults(job.rule_for[i].rule.name)) {
            plain.rule_for[i].rule = *rule;
        }
    }
    complete_parameters(plain);
    return plain;
}

void add_comment(std::string& out, const std::string& text) {
    std::string line = "#";
    for (std::size_t start = 0; start < text.size();) {
        const std::size_t end = std::min(text.find(' ', start), text.size());
        if (line.size() + 1 + (end - start) > kLineColumns) {
            out += line + "\n";
            line = "#";
        }
        line += " " + text.substr(start, end - start);
        start = end + 1;
    }
    out += line + "\n";
}

std::string explanation(const Key& key, const std::string& default_text) {
    std::string text = key.meaning;
    if (!key.valid.empty()) text += fmt::format(" One of {}.", fmt::join(key.valid, ", "));
    if (!key.unit.empty()) text += fmt::format(" Unit: {}.", key.unit);
    if (key.required && default_text == "\"\"") return text + " Must be given.";
    return text + fmt::format(" Default: {}.", default_text);
}

bool is_bare(const std::string& key) {
    return !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
        return (std::isalnum(c) != 0 && c < 0x80) || c == '_' || c == '-';
    });
}

class Writer {
  public:
    Writer(const Job& job, bool explained)
        : job_(job), defaults_(defaults_for(job)), explained_(explained) {
        complete_parameters(job_);
    }

    std::string write() {
        const std::vector<Table>& tables = job_tables();
        for (std::size_t i = 0; i < tables.size(); ++i) {
            if (!tables[i].repeated) {
                write_table(tables[i], 0, "");
            } else if (tables[i].prepare) {  // else an inner table, written with its entries
                const std::size_t entries = tables[i].entries(job_);
                for (std::size_t entry = 0; entry < entries; ++entry) {
                    write_entry(i, entry, "");
                }
                if (entries == 0 && explained_) write_absent(i);
            }
        }
        return std::move(out_);
    }

  private:
    // The entry and the inner tables that follow it.
    void write_entry(std::size_t at, std::size_t entry, const std::string& before) {
        const std::vector<Table>& tables = job_tables();
        write_table(tables[at], entry, before);
        for (++at; at < tables.size() && tables[at].repeated && !tables[at].prepare; ++at) {
            write_table(tables[at], entry, before);
        }
    }

    // A repeated table nobody used: shown as comments, with its defaults.
    void write_absent(std::size_t at) {
        const Job job = job_;
        job_ = defaults_;
        write_entry(at, 0, "# ");
        job_ = job;
    }

    void write_table(const Table& table, std::size_t entry, const std::string& before) {
        const bool has_parameters = table.parameters && !table.parameters(job_, entry).empty();
        if (table.keys.empty() && !has_parameters && !explained_) return;
        if (!table.path.empty()) {
            out_ += "\n";
            if (explained_ && !table.meaning.empty()) add_comment(out_, table.meaning);
            const bool is_entry = table.repeated && table.prepare;
            out_ += fmt::format("{}{}{}{}\n", before, is_entry ? "[[" : "[", table.path,
                                is_entry ? "]]" : "]");
        }
        for (const Key& key : table.keys) {
            if (explained_) {
                add_comment(out_, explanation(key, toml_text(key, key.slot(defaults_, entry))));
            }
            out_ +=
                fmt::format("{}{} = {}\n", before, key.name, toml_text(key, key.slot(job_, entry)));
        }
        if (table.parameters) write_parameters(table, entry, before);
    }

    void write_parameters(const Table& table, std::size_t entry, const std::string& before) {
        std::vector<ExplainedParameter> known;
        if (table.known_parameters) known = table.known_parameters(job_, entry);
        for (const auto& [name, value] : table.parameters(job_, entry)) {
            const auto explained =
                std::find_if(known.begin(), known.end(),
                             [&name = name](const auto& other) { return other.name == name; });
            if (explained_ && explained != known.end()) add_comment(out_, explained->meaning);
            out_ += fmt::format("{}{} = {}\n", before, is_bare(name) ? name : in_quotes(name),
                                toml_parameter(value));
        }
    }

    Job job_;  // a copy: slots are handed out for writing too
    Job defaults_;
    bool explained_;
    std::string out_;
};

}  // namespace

std::string to_toml(const Job& job) { return Writer(job, false).write(); }
std::string explain(const Job& job) { return Writer(job, true).write(); }

}  // namespace detente
