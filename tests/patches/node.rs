//! The built manifests on a real node, with real consumers in the main containers.
//!
//! A test's overlay changes images, network and endpoints, and nothing else: pods share the machine's network, so that all
//! traffic stays on loopback; AWS and the registries are the emulator, by its endpoint for the sidecar and by its proxy,
//! under the registries' true names, for the consumers.

mod argocd;
mod chart;
mod consumers;
mod flux;
mod quick_start;
mod scene;
mod standalone;
