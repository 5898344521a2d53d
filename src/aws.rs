//! How AWS is reached, and as whom: what the SDK would itself read from the environment and from the AWS profile files
//! is read and parsed here.

pub mod endpoint;
pub mod error;
pub mod http;
pub mod identity;
pub mod key_material;
pub mod profile_file;
pub mod sdk;
pub mod token;
pub(crate) mod variables;
