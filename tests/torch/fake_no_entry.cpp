// A shared library that is no model library.
extern "C" __attribute__((visibility("default"))) int some_other_symbol() { return 1; }
