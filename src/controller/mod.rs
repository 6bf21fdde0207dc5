//! Reconciles custom resources: observe, compile (pure), apply.
