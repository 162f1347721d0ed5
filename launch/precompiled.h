// What the launcher's sources begin with, compiled once (common/precompiled.h says more).
#pragma once

#include <boost/json.hpp>

#include "common/precompiled.h"
#include "launch/cluster_view.h"
#include "launch/job.h"
#include "launch/run_directory.h"
#include "ps/ledger.h"
