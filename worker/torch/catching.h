// Exceptions of LibTorch and of models end here.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>

#include "common/result.h"
#include "worker/torch/model.h"

namespace detente {

// Runs `part` and turns whatever it throws into an Error that says what was being done.
template <class Part>
auto catching(const std::string& doing, Part part) -> decltype(part()) {
    try {
        return part();
    } catch (const DatasetError& error) {
        return fail(ErrorCode::bad_dataset, error.what());
    } catch (const c10::Error& error) {
        return fail(ErrorCode::bad_model, doing + ": " + error.what_without_backtrace());
    } catch (const std::exception& error) {
        return fail(ErrorCode::bad_model, doing + ": " + error.what());
    } catch (...) {
        return fail(ErrorCode::bad_model, doing + ": an exception that is no std::exception");
    }
}

}  // namespace detente
