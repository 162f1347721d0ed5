// A model library of another version of the engine interface.
#include "worker/engine.h"

extern "C" {
extern const detente::EngineEntry detente_engine_entry __attribute__((visibility("default")));
const detente::EngineEntry detente_engine_entry = {detente::kEngineAbi + 7, "g++ of yesterday",
                                                   nullptr};
}
