// What every test begins with, compiled once (common/precompiled.h says more).
#pragma once

#include "common/precompiled.h"
#include "tests/printing.h"
