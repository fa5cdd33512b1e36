//! All tests of mica in one binary.
