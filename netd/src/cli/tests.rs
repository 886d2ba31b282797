//! Arguments become requests, or usage errors.

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["netd"].into_iter().chain(line.split_whitespace()))
}

#[test]
fn the_commands_do_not_contradict_themselves() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_the_contract_is_taken() {
    let lines = [
        "run --config f --name n --state-dir s --run-dir r --netns-dir d --socket x --store redb",
        "run --metrics-addr 127.0.0.1:9300 --log-format json",
        "down --purge",
        "status --format json",
        "doctor",
        "network create app -d bridge --subnet 10.0.0.0/24 --subnet fd00::/64 --gateway 10.0.0.1 --ipv6 --internal",
        "network create app --ip-range 10.0.0.0/28 --aux-address a=10.0.0.9 --label k=v -o mtu=1400 --opt icc=false",
        "network ls -q --filter name=x --format table --no-trunc",
        "network inspect a b --format json",
        "network rm a b",
        "network prune -f",
        "network connect --ip 10.0.0.2 --ip6 fd00::2 --alias a --alias b app web",
        "network disconnect app web",
        "sandbox create web --network app --network host --alias a --ip 10.0.0.2 --ip6 fd00::2",
        "sandbox create web --mac 02:00:00:00:00:01 --hostname h -p 8080:80 --publish 53:53/udp -P",
        "sandbox create web --expose 80 --expose 90-99/udp --publish-all --dns 9.9.9.9 --dns-search lan",
        "sandbox create web --dns-option ndots:2 --add-host a:10.0.0.1 --link db:sql --label a=b --netns /x",
        "sandbox create web1 --service web,weight=3",
        "service create web --network app -p 8080:80 --publish published=443,target=8443,protocol=tcp,mode=host",
        "service create web --network app -p published=1,target=2,proxy-protocol=v2 --endpoint-mode dnsrr",
        "service create web --network app --vip 10.0.0.9 --policy least-connections --affinity client-ip:60",
        "service create web --network app --health http://:80/ok --health-interval 5s --drain 30s --prefer-local",
        "service create db --network app --backend 192.0.2.7:5432,weight=3 --port http=80:8080/tcp --east-west connect",
        "service create db --network app --external-name db.example.com --label a=b",
        "service update web --backend-add 192.0.2.7:80 --backend-rm 192.0.2.8:80 --publish-add 90:90 --policy maglev",
        "service update web --prefer-local --health none --publish-rm 8080:80 -p 8081:80",
        "service ls -q --filter network=app",
        "service inspect web db",
        "service rm web db",
        "service drain web web1",
        "sandbox ls",
        "sandbox inspect web",
        "sandbox rm -f a b",
        "sandbox run web -p 8080:80 -- python3 -m http.server 80",
        "exec web -- ls -l",
        "exec web ls -l",
        "port web 80/tcp",
        "port web",
        "publish web 8080:80",
        "unpublish web 8080:80",
        "events --since 10m --filter type=network --format json",
        "stats --no-stream",
        "stats web --interval 500ms --format json",
        "dns dump web",
        "dns dump",
        "log info,access=off",
        "completion bash",
        "dataplane",
    ];
    for line in lines {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn the_socket_is_named_before_or_behind_the_command() {
    for line in ["--socket /x status", "status --socket /x", "run --socket /x", "--socket /x run"] {
        assert_eq!(parse(line).unwrap().socket, Some("/x".into()), "{line}");
    }
}

#[test]
fn the_data_plane_has_a_socket_of_its_own() {
    let Command::Dataplane(options) = parse("dataplane --socket /x").unwrap().command else {
        panic!("another command")
    };
    assert_eq!(options.socket, Some("/x".into()));
}

#[test]
fn the_command_to_run_keeps_its_flags() {
    let Command::Exec(_) = parse("exec web -- ls --help").unwrap().command else { panic!("another command") };
    assert_eq!(
        parse("sandbox run web ls").unwrap_err().kind(),
        ErrorKind::UnknownArgument,
        "a command stands behind --"
    );
    assert_eq!(parse("sandbox run web").unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
}

#[test]
fn wrong_values_are_usage_errors_that_say_what_is_right() {
    let lines = [
        ("sandbox create a/b", "'/' may not be in it"),
        ("sandbox create web -p 8080:0", "use 1 to 65535"),
        ("sandbox create web --mac 01:00:00:00:00:00", "group address"),
        ("network create n --subnet 10.0.0.1/24", "write 10.0.0.0/24"),
        ("network create n -d macvlan", "use bridge, or overlay"),
        ("sandbox create web --network name=a,colour=red", "use name, alias, ip, ip6 and mac"),
        ("service create web --network n --health icmp", "http://:PORT/PATH"),
        ("service create web --network n -p published=80", "target port is missing"),
        ("service create a.b --network n", "'.' may not be in it"),
        ("service create web --network n --backend 192.0.2.1:80,weight=0", "\"0\" is no weight"),
        ("publish web 9090-9089:80", "write 9089-9090"),
        ("network ls --filter x", "KEY=VALUE"),
    ];
    for (line, remedy) in lines {
        let error = parse(line).unwrap_err();
        assert!(error.use_stderr() && error.to_string().contains(remedy), "{line}: {error}");
    }
}

#[test]
fn every_command_has_examples() {
    fn leaves(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        if command.has_subcommands() {
            command.get_subcommands().filter(|sub| !sub.is_hide_set()).for_each(|sub| leaves(sub, &path));
        } else if command.get_name() != "help" {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") && help.contains(path.trim()), "{path}: no example");
        }
    }
    leaves(&Cli::command(), "");
}

#[test]
fn every_flag_says_what_it_is() {
    fn silent(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
            silent(sub, &path, found);
        }
        // The values that it takes say it, too.
        let speaks = |arg: &clap::Arg| arg.get_help().is_some() || !arg.get_possible_values().is_empty();
        let flags = command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set());
        found.extend(flags.filter(|arg| !speaks(arg)).map(|arg| format!("{path} --{}", arg.get_id())));
    }
    let mut found = Vec::new();
    silent(&Cli::command(), "", &mut found);
    assert!(found.is_empty(), "{found:#?}");
}
