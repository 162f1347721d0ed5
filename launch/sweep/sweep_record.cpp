#include "launch/sweep/sweep_record.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/file.h"
#include "launch/strict_reading.h"

namespace detente {

namespace json = boost::json;

namespace {

constexpr std::size_t kMostBytes = 64U << 20U;

CellState state_from(const std::string& name) {
    for (const CellState state : {CellState::waiting, CellState::done, CellState::failed}) {
        if (name == name_of(state)) return state;
    }
    throw BadMember{"'state' must be one of waiting, done, failed"};
}

const json::object& object_in(const json::value& value, const char* list) {
    const json::object* object = value.if_object();
    if (object == nullptr) throw BadMember{fmt::format("'{}' must be a list of objects", list)};
    return *object;
}

// A cell's name becomes a path: only what sweeps make of it is taken from a file.
bool is_folder_name(const std::string& name) {
    return !name.empty() && name.front() != '.' && name.find('/') == std::string::npos &&
           name.find('\0') == std::string::npos;
}

SweepCell cell_from(const json::object& object) {
    SweepCell cell;
    cell.name = text_at(object, "name");
    if (!is_folder_name(cell.name)) throw BadMember{"'name' must be the name of a folder"};
    for (const auto& [key, value] : object_at(object, "settings")) {
        const json::string* text = value.if_string();
        if (text == nullptr) throw BadMember{"'settings' must hold texts"};
        cell.settings.emplace_back(std::string(key), std::string(*text));
    }
    cell.seed = count_at(object, "seed");
    cell.state = state_from(text_at(object, "state"));
    cell.exit_code = static_cast<int>(count_at(object, "exit_code"));
    cell.error = text_at(object, "error");
    return cell;
}

}  // namespace

const char* name_of(CellState state) {
    switch (state) {
        case CellState::waiting:
            return "waiting";
        case CellState::done:
            return "done";
        case CellState::failed:
            return "failed";
    }
    return "unknown";
}

std::string sweep_file(const std::string& directory) { return directory + "/sweep.json"; }
std::string cell_dir(const std::string& directory, const SweepCell& cell) {
    return directory + "/cells/" + cell.name;
}
std::string cell_log(const std::string& directory, const SweepCell& cell) {
    return cell_dir(directory, cell) + ".log";
}

std::string title_of(const SweepCell& cell) {
    std::string title;
    for (const auto& [key, value] : cell.settings) {
        std::string shown = value;
        shown.erase(std::remove(shown.begin(), shown.end(), '"'), shown.end());
        title += fmt::format("{}{} {}", title.empty() ? "" : ", ", key.substr(key.rfind('.') + 1),
                             shown);
    }
    return title.empty() ? "the job as it is" : title;
}

std::string to_json(const SweepRecord& record) {
    json::array axes;
    for (const GridAxis& axis : record.axes) {
        axes.push_back(json::object{
            {"key", axis.key}, {"values", json::array(axis.values.begin(), axis.values.end())}});
    }
    json::array cells;
    for (const SweepCell& cell : record.cells) {
        json::object settings;
        for (const auto& [key, value] : cell.settings) settings[key] = value;
        cells.push_back(json::object{{"name", cell.name},
                                     {"settings", std::move(settings)},
                                     {"seed", cell.seed},
                                     {"state", name_of(cell.state)},
                                     {"exit_code", cell.exit_code},
                                     {"error", cell.error}});
    }
    return json::serialize(json::object{{"sweep", 1},
                                        {"job", record.job},
                                        {"verb", record.verb},
                                        {"grid", std::move(axes)},
                                        {"cells", std::move(cells)}}) +
           "\n";
}

Result<SweepRecord> read_sweep(const std::string& directory) {
    const std::string file = sweep_file(directory);
    const auto text = read_text(file, kMostBytes);
    if (text.has_error()) return fail(ErrorCode::io, text.error().text);
    try {
        const json::object object = object_from(*text);
        if (count_at(object, "sweep") != 1) throw BadMember{"'sweep' must be 1, another layout"};
        SweepRecord record;
        record.job = text_at(object, "job");
        record.verb = text_at(object, "verb");
        for (const json::value& axis : array_at(object, "grid")) {
            record.axes.push_back({text_at(object_in(axis, "grid"), "key"),
                                   texts_at(object_in(axis, "grid"), "values")});
        }
        for (const json::value& cell : array_at(object, "cells")) {
            record.cells.push_back(cell_from(object_in(cell, "cells")));
        }
        return record;
    } catch (const BadMember& bad) {
        return fail(ErrorCode::bad_message,
                    fmt::format("{}: {}; expected what `detente sweep` wrote", file, bad.text));
    }
}

}  // namespace detente
