# What is true of each Debian release and architecture; sourced by lock and build.
# Sets $python, $glibc and $machine; pip_for_board has pip choose wheels for them, whatever it runs on itself.

releases=(12 13) architectures=(amd64 arm64)

choose() {  # RELEASE ARCHITECTURE
    case $1 in
        12) python=3.11 glibc=36 ;;
        13) python=3.13 glibc=41 ;;
        *) echo "error: no packages are made for Debian $1; there are: ${releases[*]}" >&2; exit 64 ;;
    esac
    case $2 in
        amd64) machine=x86_64 ;;
        arm64) machine=aarch64 ;;
        *) echo "error: no packages are made for $2; there are: ${architectures[*]} (32-bit boards: pip with piwheels)" >&2; exit 64 ;;
    esac
}

pip_for_board() {  # PYTHON-WITH-PIP COMMAND [OPTION...]
    local minor platforms=(--platform "manylinux2014_$machine")
    for ((minor = glibc; minor >= 17; minor--)); do platforms+=(--platform "manylinux_2_${minor}_$machine"); done
    "$1" -m pip "$2" -qq --disable-pip-version-check --root-user-action=ignore --no-input \
        --implementation cp --python-version "$python" "${platforms[@]}" --only-binary=:all: "${@:3}"
}
