//! Prints the OpenAPI document. `make openapi` writes it to `openapi/openapi.json`.

fn main() {
    print!("{}", ashlar_openapi::document::text());
}
