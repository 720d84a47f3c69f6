#!/bin/sh
# What compose.yaml needs on this machine, in ../local and ../.env: certificates, accounts, folders. Nothing that exists
# is changed, so it may run again, for instance after an upgrade or with another account.
set -eu

usage() {
    cat <<'END'
usage: prepare.sh [--name NAME]... [ACCOUNT...]

  --name NAME   host name or IP address under which devices elsewhere reach the broker; may repeat
  ACCOUNT       an account for a device or a viewer, besides those of compose.yaml
END
}

fail() {
    echo "prepare.sh: $*" >&2
    exit 1
}

names= accounts='gateway operator viewer bridge wrist-01 camera-01'
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --name) [ $# -gt 1 ] || fail "--name needs a value"; names="$names $2"; shift 2 ;;
        '' | *[!A-Za-z0-9_-]* | -*) usage >&2; exit 2 ;;
        *) accounts="$accounts $1"; shift ;;
    esac
done
cd "$(dirname "$0")/.."
command -v openssl >/dev/null || fail "openssl is not installed"
command -v mosquitto_passwd >/dev/null || fail "mosquitto_passwd is not installed; it is in the package mosquitto, \
whose broker need not run here: systemctl disable --now mosquitto"

# Containers run as whoever prepares, so that they, and nobody else, read the secrets. Not as root.
user=$(id -u):$(id -g)
[ "$(id -u)" -ne 0 ] || user=10001:10001

umask 077
mkdir -p local/secrets local/bundles local/state/mosquitto local/state/prometheus local/state/grafana
if [ ! -e local/certificates/broker.crt ]; then
    # shellcheck disable=SC2086 - one word a name; make-certificates.sh checks them
    mosquitto/make-certificates.sh --out local/certificates mosquitto localhost 127.0.0.1 $names >/dev/null
fi
[ -e local/acl ] || cp mosquitto/acl local/acl

[ -e local/secrets/passwords ] || : >local/secrets/passwords
for account in $accounts; do
    [ ! -e "local/secrets/$account.password" ] || continue
    openssl rand -hex 16 >local/secrets/new
    # It asks twice, and takes the answers from a pipe: no password is ever on a command line.
    cat local/secrets/new local/secrets/new | mosquitto_passwd local/secrets/passwords "$account" >/dev/null
    mv local/secrets/new "local/secrets/$account.password"
done
for secret in grafana.password page.token; do
    [ -e "local/secrets/$secret" ] || openssl rand -hex 16 >"local/secrets/$secret"
done
[ "$(id -u)" -ne 0 ] || chown -R "$user" local

echo "GAMMAWEAR_USER=$user" >.env
echo "local/secrets has a password for each of: $accounts; and grafana.password, for its admin; page.token, to label on the page."
echo "Keep local/certificates/ca.key elsewhere: who has it can pose as your broker."
