// What a model in a project of its own includes: #include <detente/model.h>.
#pragma once
#include "worker/torch/model.h"
