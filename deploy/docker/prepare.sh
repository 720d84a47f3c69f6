#!/bin/sh
# What compose.yaml needs on this machine, in ../local and ../.env: certificates, accounts, folders. Nothing that exists
# is changed unless asked for, so it may run again, for instance after an upgrade or with another account.
set -eu

usage() {
    cat <<'END'
usage: prepare.sh [--name NAME]... [--renew] [ACCOUNT...]

  --name NAME   host name or IP address under which devices elsewhere reach the broker; may repeat
  --renew       make the broker's certificate anew, before it ends; its names stay
  ACCOUNT       an account for a device or a viewer, besides those of compose.yaml
END
}

fail() {
    echo "prepare.sh: $*" >&2
    exit 1
}

names= renew= accounts='gateway operator viewer bridge wrist-01 camera-01'
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --name) [ $# -gt 1 ] || fail "--name needs a value"; names="$names $2"; shift 2 ;;
        --renew) renew=--force; shift ;;
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
certificate=local/certificates/broker.crt known='mosquitto localhost 127.0.0.1'
if [ -e $certificate ]; then
    known=$(openssl x509 -in $certificate -noout -ext subjectAltName | tr ', ' '\n\n' |
        sed -n 's/^DNS://p; s/^Address://p' | paste -sd ' ' -)
fi
for name in $names; do
    case " $known " in *" $name "*) ;; *) known="$known $name" renew=--force ;; esac
done
if [ ! -e $certificate ] || [ -n "$renew" ]; then
    # shellcheck disable=SC2086 - one word a name; make-certificates.sh checks them
    mosquitto/make-certificates.sh --force --out local/certificates $known >/dev/null
    echo "local/certificates has a new certificate for $known; a broker that runs takes it at its next start."
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
