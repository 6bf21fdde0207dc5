//! Ferrule's tests on a real cluster: the programs that run in pods, and the harness around kubectl and helm.
pub mod workload;
