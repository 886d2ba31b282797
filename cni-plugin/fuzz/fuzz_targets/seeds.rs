//! Calls as runtimes make them: `KEY=VALUE` lines, an empty line, stdin. One for each plugin that is stood in for, with
//! what it reads; and what netavark says, which has no lines.

pub const ALL: &[&str] = &[
    concat!(
        "CNI_COMMAND=ADD\nCNI_CONTAINERID=0123456789ab\nCNI_NETNS=/run/netns/web\nCNI_IFNAME=eth0\nCNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.9.0.5/24;MAC=02:00:00:00:00:05\n\n",
        r#"{"cniVersion":"1.1.0","name":"app","type":"netd-cni","network":"shared","socket":"/run/netd.sock","spool":"/var/spool","subnet":"10.9.0.0/24","ipv6":true,"mtu":1400,"internal":false,"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"127.0.0.1"}],"ips":["10.9.0.5/24","fd00::5/64"],"mac":"02:00:00:00:00:05","aliases":{"app":["www"]},"dns":{"servers":["192.0.2.53"],"searches":["example.com"],"options":["ndots:2"]},"ipRanges":[[{"subnet":"10.9.0.0/24"}]],"bandwidth":{"ingressRate":1000000,"ingressBurst":100000,"egressRate":1000000,"egressBurst":100000}},"args":{"cni":{"ips":["10.9.0.6"]}},"dns":{"nameservers":["192.0.2.54"],"domain":"example.com"}}"#
    ),
    concat!(
        "CNI_COMMAND=CHECK\nCNI_CONTAINERID=web\nCNI_NETNS=/n\nCNI_IFNAME=eth0\n\n",
        r#"{"cniVersion":"0.4.0","name":"app","prevResult":{"cniVersion":"0.4.0","interfaces":[{"name":"veth0"},{"name":"eth0","mac":"02:00:00:00:00:05","sandbox":"/n"}],"ips":[{"version":"4","interface":1,"address":"10.9.0.5/24","gateway":"10.9.0.1"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["192.0.2.53"]}}}"#
    ),
    concat!(
        "CNI_COMMAND=GC\n\n",
        r#"{"cniVersion":"1.1.0","name":"app","cni.dev/valid-attachments":[{"containerID":"web","ifname":"eth0"}]}"#
    ),
    concat!(
        "CNI_COMMAND=ADD\nCNI_CONTAINERID=web\nCNI_NETNS=/n\nCNI_IFNAME=eth0\n\n",
        r#"{"cniVersion":"0.2.0","name":"app","type":"bridge","bridge":"cni0","isDefaultGateway":true,"ipMasq":true,"mtu":1500,"hairpinMode":true,"vlan":0,"portIsolation":true,"ipam":{"type":"host-local","dataDir":"/d","ranges":[[{"subnet":"10.9.0.0/24","rangeStart":"10.9.0.9","rangeEnd":"10.9.0.13","gateway":"10.9.0.1"}],[{"subnet":"fd00::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"10.0.0.0/8","gw":"10.9.0.2","priority":5,"table":7}]}}"#
    ),
    concat!(
        "CNI_COMMAND=ADD\nCNI_CONTAINERID=web\nCNI_NETNS=/n\nCNI_IFNAME=eth0\n\n",
        r#"{"cniVersion":"1.0.0","name":"app","type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1","net/core/somaxconn":"500"},"mac":"02:00:00:00:00:05","mtu":1400,"txQLen":5,"promisc":true,"allmulti":false,"domainName":"dns.example","backend":"nftables","ingressPolicy":"same-bridge","ingressRate":1000000,"ingressBurst":100000,"snat":true,"prevResult":{"ips":[]}}"#
    ),
    concat!(
        "\n\n",
        r#"{"container_id":"0123456789abcdef","container_name":"web","port_mappings":[{"host_ip":"127.0.0.1","host_port":8000,"container_port":80,"protocol":"tcp,udp","range":3}],"network":{"name":"app","id":"ab","driver":"netd","network_interface":"podman1","dns_enabled":true,"internal":false,"ipv6_enabled":true,"subnets":[{"subnet":"10.9.0.0/24","gateway":"10.9.0.1"}],"routes":[],"network_dns_servers":["192.0.2.53"],"options":{"mtu":"1400","isolate":"strict"},"ipam_options":{"driver":"host-local"}},"network_options":{"interface_name":"eth1","static_ips":["10.9.0.5","fd00::5"],"static_mac":"02:00:00:00:00:05","aliases":["www"]}}"#
    ),
];
