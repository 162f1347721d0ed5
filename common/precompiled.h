// What most of our sources begin with, compiled once for all of them (cmake/DetenteOptions.cmake).
// No source relies on it: each includes what it uses, and clang-tidy reads it without this.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "common/config.h"
#include "common/conflict/aggregator.h"
#include "common/messages.h"
#include "common/partition/plan.h"
#include "common/random.h"
#include "common/runtime/contracts.h"
#include "common/staleness/policy.h"
