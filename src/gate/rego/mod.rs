//! Rego: the only door to `regorus`.
