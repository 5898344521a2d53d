//! ecr-emulator.
