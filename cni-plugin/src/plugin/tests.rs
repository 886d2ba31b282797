use super::*;

#[test]
fn the_file_name_says_whose_place_is_taken() {
    for plugin in Plugin::ALL {
        let path = format!("/usr/local/lib/netd/cni/{}", plugin.name());
        assert_eq!(Plugin::called(OsStr::new(&path)), plugin);
        assert_eq!(Plugin::called(OsStr::new(plugin.name())), plugin);
    }
    for other in ["", "/", "netd-cni.new", "brid", "bridge/.."] {
        assert_eq!(Plugin::called(OsStr::new(other)), Plugin::Netd, "{other}");
    }
}

#[test]
fn a_configuration_called_as_the_default_network_has_one_of_its_own() {
    let network = |text: &str| {
        let mut config = Config::read(text.as_bytes()).unwrap();
        config.leave_the_default_network().unwrap().network.to_string()
    };
    assert_eq!(network(r#"{"cniVersion":"1.0.0","name":"bridge"}"#), "cni-bridge");
    assert_eq!(network(r#"{"cniVersion":"1.0.0","name":"bridge","network":"bridge"}"#), "bridge");
    assert_eq!(network(r#"{"cniVersion":"1.0.0","name":"app"}"#), "app");
}
