# What each of the packages holds; sourced by build.
# choose_NAME sets the wheels ($requirements), those of another package that it stands on ($given, empty for none), $units without
# ".service", what purging it removes ($state), and $control. fill_NAME lays its own files into $tree.

choose_edged() {
    requirements=deploy/debian/requirements-$release.txt given='' control=deploy/debian/control.in
    units='edged edged-hub edged-hub-init edged-init'
    state='/var/lib/edged /var/lib/edged-hub /run/edged /run/edged-hub /etc/edged'
}

fill_edged() {
    # That one package of Debian's own, where it is installed; nothing else of dist-packages is seen.
    ln -s ../../../../python3/dist-packages/systemd "$site/systemd"
    install -m 755 deploy/debian/edged-command "$home/bin/edged"
    ln -s ../lib/edged/bin/edged "$tree/usr/bin/edged"
    if [[ $release -ge 13 ]]; then  # what only a newer systemd knows
        install -D -m 644 -t "$tree/usr/lib/systemd/system/edged.service.d" systemd/drop-ins/notify-reload.conf
    fi
    cp systemd/edged.catalog "$tree/usr/lib/systemd/catalog/"
    cp README.md docs/*.md docs/*.cddl docs/*.json "$documents"
    cp -r deploy/debian/examples/. systemd/drop-ins docs/examples "$documents/examples"
    mv "$documents/examples/examples" "$documents/examples/manifests"
    gzip -9n <deploy/debian/edged.1 >"$tree/usr/share/man/man1/edged.1.gz"
}

choose_edged-federated() {
    requirements=deploy/debian/requirements-federated-$release.txt given=edged control=deploy/debian/control-federated.in
    units='edged-aggregator edged-federated'
    # /etc/edged and a board's state are those of edged.
    state='/var/lib/edged-aggregator /run/edged-aggregator /run/edged-federated /etc/edged/aggregator.toml /etc/edged/aggregator.toml.d'
}

fill_edged-federated() {
    # Behind this package's own wheels, all that edged has, and edged itself.
    echo "/usr/lib/edged/lib/python$python/site-packages" >"$site/edged.pth"
    command_of edged edged.cli main
    command_of flower-supernode flwr.supernode.cli flower_supernode
    command_of flower-superlink flwr.superlink.cli flower_superlink
    cp deploy/aggregator/nginx.conf "$documents/examples"
}

command_of() {  # NAME MODULE FUNCTION
    sed "s/@MODULE@/$2/; s/@FUNCTION@/$3/" deploy/debian/federated-command >"$home/bin/$1"
    chmod 755 "$home/bin/$1"
}
