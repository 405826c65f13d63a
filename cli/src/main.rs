fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args: Vec<String> = std::env::args().collect();
    let of = |name: &str| args.iter().position(|a| a == name).map(|i| args[i + 1].clone());
    ashlar_server::serve::serve(ashlar_server::serve::Settings {
        data: of("--data").unwrap().into(),
        listen: of("--listen").unwrap_or("127.0.0.1:0".into()),
        nbd_listen: of("--nbd-listen").unwrap_or("127.0.0.1:0".into()),
        database_url: None,
        postgres_bin: None,
        certificate: None,
        plain_http: false,
        data_threads: 2,
    })
    .unwrap();
}
