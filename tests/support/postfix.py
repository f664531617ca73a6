"""A real Postfix on loopback for this test run alone: TLS, login, and a Maildir for all mail.

It uses only the programs of the machine's Postfix. Configuration, queue, passwords, log and mail are in one temporary
folder. It asks no DNS server, and sends no mail to other machines.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes
from pathlib import Path

import psutil
import trustme

from tests.support.programs import LIMIT, free_ports, wait_until

USER, PASSWORD = "jo@example.com", "p:/@w"  # characters that a URL must percent-encode
LOGIN = "jo%40example.com:p%3A%2F%40w"
UNKNOWN = "nobody@example.com"  # all other addresses at these domains have a mailbox
_DOMAINS = "example.com, example.org, xn--bcher-kva.example"

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_MAX_SECONDS = 300  # after this a Postfix ends by itself, in case its test run was killed

# Each service listens on its own port, with these options in addition to the common ones.
SERVICES = {
    "submission": "",
    "smtps": "-o smtpd_tls_wrappermode=yes",
    "impatient": "-o smtpd_timeout=2s -o syslog_name=impatient",
    "counted": "-o syslog_name=counted",
    "no chunking": "-o smtpd_discard_ehlo_keywords=chunking -o syslog_name=data",
    "no chunking, strict": "-o smtpd_discard_ehlo_keywords=chunking -o smtpd_hard_error_limit=2",
    "strict": "-o smtpd_hard_error_limit=1",
    "strict at the end": "-o smtpd_hard_error_limit=2",
    "slow after errors": "-o smtpd_error_sleep_time=30s",
    "crowded": "-o smtpd_client_connection_count_limit=2",
    "rationed": "-o smtpd_client_message_rate_limit=2",
}

_MAIN = """\
compatibility_level = 3.6
myhostname = mx.example.com
mydestination =
mynetworks =
alias_maps =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}

# All mail arrives in one Maildir, and none leaves the machine.
disable_dns_lookups = yes
smtp_dns_support_level = disabled
default_transport = error:nothing is sent anywhere
relay_transport = error:nothing is sent anywhere
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = regexp:{folder}/config/mailboxes
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtputf8_enable = yes

# Clients must log in, and only after STARTTLS.
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_tls_chain_files = {folder}/config/certificate.pem
smtpd_tls_received_header = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_authenticated_header = yes
cyrus_sasl_config_path = {folder}/config/sasl
smtpd_client_restrictions = permit_sasl_authenticated, reject
smtpd_relay_restrictions = permit_sasl_authenticated, reject

# As strict as a well-configured server.
smtpd_helo_required = yes
smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname
smtpd_data_restrictions = reject_unauth_pipelining
strict_rfc821_envelopes = yes

# Loopback clients have no privileges. Errors cause no delay, to keep the tests fast.
smtpd_client_event_limit_exceptions =
smtpd_error_sleep_time = 0
service_throttle_time = 1s
"""

_MASTER = """\
pickup    unix       n - n 60    1 pickup
cleanup   unix       n - n -     0 cleanup
qmgr      unix       n - n 300   1 qmgr
tlsmgr    unix       - - n 1000? 1 tlsmgr
rewrite   unix       - - n -     - trivial-rewrite
bounce    unix       - - n -     0 bounce
defer     unix       - - n -     0 bounce
trace     unix       - - n -     0 bounce
error     unix       - - n -     - error
retry     unix       - - n -     - error
virtual   unix       - n n -     - virtual
anvil     unix       - - n -     1 anvil
postlog   unix-dgram n - n -     1 postlogd
"""

_SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
mech_list: PLAIN LOGIN
sasldb_path: {folder}/passwords/db
"""


def reason_to_skip() -> str | None:
    """Why Postfix cannot run here; None if it can."""
    for program, package in (("postfix", "postfix"), ("saslpasswd2", "sasl2-bin")):
        if shutil.which(program, path=_PATH) is None:
            return f"{package} is not installed"
    return "Postfix needs root" if os.geteuid() != 0 else None


class Postfix:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        self._master: subprocess.Popen[bytes] | None = None
        self._read: set[str] = set()
        self._arrived: defaultdict[str, list[bytes]] = defaultdict(list)
        self._configure()

    def url(self, service: str = "submission", login: str = LOGIN) -> str:
        scheme = "smtps" if service == "smtps" else "smtp"
        return f"{scheme}://{login}{'@' if login else ''}127.0.0.1:{self._ports[service]}"

    def port(self, service: str = "submission") -> int:
        return self._ports[service]

    def logged(self, service: str, what: str) -> int:
        """How many times the sessions of this service have logged `what`."""
        return len(re.findall(rf" {service}/smtpd\[\d+\]: {what}", self.log))

    def start(self) -> None:
        # The last command of `postfix start`, without its delays, and as a child of this process.
        master = Path(_output("postconf", "-d", "-h", "daemon_directory")) / "master"
        config = str(self._folder / "config")
        self._master = subprocess.Popen(
            [str(master), "-c", config, "-e", str(_MAX_SECONDS)], stdin=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(self._listens, "Postfix listens")

    def stop(self) -> None:
        """Stop it as `postfix stop` does. Fails if a process is left behind."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9 the master and all processes it has started."""
        self._end(signal.SIGKILL)

    @property
    def log(self) -> str:
        path = self._folder / "log"
        return path.read_text() if path.exists() else ""

    def kill_sessions(self) -> None:
        """kill -9 only the processes that talk to clients."""
        sessions = [process for process in self._processes() if process.name() == "smtpd"]
        for process in sessions:
            process.kill()
        wait_until(lambda: not any(process.is_running() for process in sessions), "the sessions have ended")

    def arrived(self, message_id: str) -> list[bytes]:
        """All delivered copies of this message, with LF line ends."""
        for path in (self._folder / "mail/inbox/new").glob("*"):
            if path.name not in self._read:
                self._read.add(path.name)
                message = path.read_bytes()
                self._arrived[message_from_bytes(message)["Message-ID"]].append(message)
        return self._arrived[message_id]

    def _configure(self) -> None:
        self._folder.chmod(0o755)  # because the daemons run as other users
        nobody, owner = pwd.getpwnam("nobody"), pwd.getpwnam(_output("postconf", "-d", "-h", "mail_owner"))
        for name, user in (("config", None), ("queue", None), ("data", owner), ("passwords", owner), ("mail", nobody)):
            (self._folder / name).mkdir()
            if user is not None:
                os.chown(self._folder / name, user.pw_uid, user.pw_gid)
        config = self._folder / "config"
        listeners = [f"127.0.0.1:{port} inet n - n - - smtpd {SERVICES[name]}\n" for name, port in self._ports.items()]
        ids = {"uid": nobody.pw_uid, "gid": nobody.pw_gid}
        (config / "main.cf").write_text(_MAIN.format(folder=self._folder, domains=_DOMAINS, **ids))
        (config / "master.cf").write_text(_MASTER + "".join(listeners))
        (config / "mailboxes").write_text(f"!/^{UNKNOWN}$/ inbox/\n")
        (config / "sasl").mkdir()  # Debian's Postfix always reads this folder
        (config / "sasl/smtpd.conf").write_text(_SASL.format(folder=self._folder))
        certificate = trustme.CA().issue_cert("localhost", "127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(config / "certificate.pem")
        name, _, domain = USER.partition("@")
        passwords = self._folder / "passwords/db"
        _output("saslpasswd2", "-f", str(passwords), "-c", "-p", "-u", domain, name, text=PASSWORD)
        os.chown(passwords, owner.pw_uid, owner.pw_gid)
        _output("postfix", "-c", str(config), "check")  # creates the folders of the queue

    def _listens(self) -> bool:
        assert self._master is not None
        assert self._master.poll() is None, f"Postfix has ended:\n{self.log}"
        open_ports = {each.laddr.port for each in psutil.Process(self._master.pid).net_connections("tcp")}
        return open_ports >= set(self._ports.values())

    def _processes(self) -> list[psutil.Process]:
        """All running processes of this Postfix: those in the process group of its master."""
        master = self._master
        return [process for process in psutil.process_iter() if master is not None and _runs_in(process, master.pid)]

    def _end(self, number: signal.Signals) -> None:
        if self._master is None:
            return
        family = self._processes()
        with suppress(ProcessLookupError):
            os.killpg(self._master.pid, number)
        try:
            self._master.wait(LIMIT)
            wait_until(lambda: not self._processes(), "all of Postfix has ended")
        finally:
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()  # psutil does not kill a new process with the same pid
            self._master.kill()
            self._master.wait()
            self._master = None


@contextmanager
def running_postfix() -> Iterator[Postfix]:
    # Not pytest's temporary folder, because only root can read that.
    with tempfile.TemporaryDirectory(prefix="postfix-") as folder:
        postfix = Postfix(Path(folder))
        try:
            postfix.start()
            yield postfix
        finally:
            postfix.stop()


def _runs_in(process: psutil.Process, group: int) -> bool:
    with suppress(ProcessLookupError, psutil.NoSuchProcess):
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    return False


def _output(program: str, *arguments: str, text: str = "") -> str:
    path = shutil.which(program, path=_PATH)
    assert path is not None
    return subprocess.run([path, *arguments], input=text, capture_output=True, text=True, check=True).stdout.strip()
