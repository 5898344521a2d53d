//! Who asks AWS: every source, `auto`, rotation, and the variables that say how AWS is reached. The real
//! binary as a process, against the emulated AWS, which verifies each signature.

mod auto;
mod inputs;
mod network;
mod rotation;
mod sources;
