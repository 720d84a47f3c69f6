#!/bin/sh
# A CA of your own, and a certificate for the broker that it signs. Run it where the CA's key may stay: not on the broker.
set -eu

usage() {
    cat <<'END'
usage: make-certificates.sh [--out FOLDER] [--days N] [--ca-days N] [--force] NAME...

NAME is a host name or an IP address under which clients reach the broker. Give them all: clients check it.

  --out FOLDER   where the files go (certificates)
  --days N       how long the broker's certificate is valid (825)
  --ca-days N    how long the CA is valid, if it has to be made (3650)
  --force        replace the broker's key and certificate; the CA stays, so that clients keep trusting it
END
}

fail() {
    echo "make-certificates.sh: $*" >&2
    exit 1
}

is_days() {
    case $1 in '' | 0* | *[!0-9]* | ??????*) return 1 ;; esac
}

out=certificates days=825 ca_days=3650 force=no
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --force) force=yes; shift ;;
        --out | --days | --ca-days)
            [ $# -gt 1 ] || fail "$1 needs a value"
            case $1 in --out) out=$2 ;; --days) days=$2 ;; *) ca_days=$2 ;; esac
            shift 2 ;;
        -*) usage >&2; exit 2 ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || { usage >&2; exit 2; }
[ -n "$out" ] || fail "--out needs a folder"
is_days "$days" || fail "--days is a whole number of days, not '$days'"
is_days "$ca_days" || fail "--ca-days is a whole number of days, not '$ca_days'"
command -v openssl >/dev/null || fail "openssl is not installed"

# Names go into a configuration file of openssl: nothing but names may get there.
alternatives=
for name in "$@"; do
    case $name in
        '' | .* | -* | *..* | *[!A-Za-z0-9.:-]*) fail "not a host name or an IP address: '$name'" ;;
        *:*) kind=IP ;;
        *[!0-9.]*) kind=DNS ;;
        *) kind=IP ;;
    esac
    alternatives=$alternatives${alternatives:+,}$kind:$name
done
if [ $force = no ]; then
    for file in broker.key broker.crt; do
        [ ! -e "$out/$file" ] || fail "$out/$file exists; --force replaces it"
    done
fi
if [ -e "$out/ca.key" ] && [ ! -e "$out/ca.crt" ] || [ ! -e "$out/ca.key" ] && [ -e "$out/ca.crt" ]; then
    fail "$out has one of ca.key and ca.crt only; bring the other one back, or take this one away for a new CA"
fi

umask 077
mkdir -p "$out"
# Everything is made here first: what goes wrong leaves no half of a pair behind.
new=$(mktemp -d "$out/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM

cat >"$new/openssl.cnf" <<END
[req]
distinguished_name = name
prompt = no
[name]
CN = \${ENV::COMMON_NAME}
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[broker]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = $alternatives
END

quietly() {
    "$@" 2>"$new/log" || {
        cat "$new/log" >&2
        fail "openssl made no certificate for $alternatives; is each a name or an address?"
    }
}

make_key() {
    quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

ca=$out
if [ ! -e "$out/ca.key" ]; then
    ca=$new
    make_key "$new/ca.key"
    COMMON_NAME="gammawear CA $(date -u +%Y-%m-%d)"
    export COMMON_NAME
    quietly openssl req -x509 -new -sha256 -key "$new/ca.key" -days "$ca_days" -config "$new/openssl.cnf" \
        -extensions ca -out "$new/ca.crt"
fi
make_key "$new/broker.key"
# A subject's name has at most 64 characters. Clients look at the alternative names only.
COMMON_NAME=$(printf '%.64s' "$1")
export COMMON_NAME
quietly openssl req -new -sha256 -key "$new/broker.key" -config "$new/openssl.cnf" -out "$new/broker.csr"
serial=0x$(openssl rand -hex 16)
quietly openssl x509 -req -sha256 -in "$new/broker.csr" -CA "$ca/ca.crt" -CAkey "$ca/ca.key" -set_serial "$serial" \
    -days "$days" -extfile "$new/openssl.cnf" -extensions broker -out "$new/broker.crt"
quietly openssl verify -CAfile "$ca/ca.crt" "$new/broker.crt" >/dev/null
chmod 644 "$new"/*.crt

for file in ca.key ca.crt broker.key broker.crt; do
    [ ! -e "$new/$file" ] || mv -f "$new/$file" "$out/$file"
done

cat <<END
$out/ca.crt       to every client, which names it with --ca-file
$out/broker.crt   to the broker: /etc/mosquitto/certs/broker.crt
$out/broker.key   to the broker: /etc/mosquitto/certs/broker.key, readable for mosquitto alone
$out/ca.key       stays here, or goes to a safe: who has it can pose as your broker
$(openssl x509 -in "$out/broker.crt" -noout -enddate | sed 's/^notAfter=/The broker certificate ends on /') for $alternatives.
END
