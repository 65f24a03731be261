//! `/openapi.json`, put together from what the handlers declare.

use axum::body::Bytes;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{Components, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, Required};

/// The description of the API, while routes are being added.
pub struct Document(OpenApi);

type Schemas = Vec<(String, RefOr<Schema>)>;

impl Document {
    pub fn new() -> Self {
        let info = InfoBuilder::new()
            .title("Quorate")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(
                "A replicated registry of names and groups in two modes: gossip (ap) and Raft (cp). \
                 The paths under /v1/{mode} answer without the mode too, for the server's default one. \
                 Every answer of 400 and above is application/problem+json.",
            ))
            .build();
        Self(OpenApiBuilder::new().info(info).components(Some(Components::new())).build())
    }

    /// Adds routes that are mounted as they are.
    pub fn add(&mut self, schemas: Schemas, paths: Paths) {
        for (path, item) in paths.paths {
            self.0.paths.paths.entry(path).or_default().merge_operations(item);
        }
        self.0.components.get_or_insert_default().schemas.extend(schemas);
    }

    /// Adds routes that are mounted once for each mode: one path with the mode as a parameter.
    pub fn add_for_modes(&mut self, schemas: Schemas, paths: Paths) {
        let mut prefixed = Paths::new();
        for (path, mut item) in paths.paths {
            item.parameters.get_or_insert_default().push(RefOr::T(mode()));
            prefixed.paths.insert(format!("/v1/{{mode}}{path}"), item);
        }
        self.add(schemas, prefixed);
    }

    /// The document's text.
    pub fn finish(self) -> Bytes {
        let text = self.0.to_json().expect("the description is made of plain data");
        Bytes::from(text)
    }
}

fn mode() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["cp", "ap"])).build();
    ParameterBuilder::new()
        .name("mode")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("Which of the two registries."))
        .schema(Some(schema))
        .build()
}
