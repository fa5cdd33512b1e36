//! Tests with a tiny file system on a real mount.
