"""An authority and certificates for tests of TLS, made with openssl."""

import os
import shutil
import subprocess


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    """One certificate authority in a folder; issue() makes certificates of 127.0.0.1."""

    def __init__(self, folder, name="mill-ca"):
        self.folder = os.path.join(str(folder), name)
        os.makedirs(self.folder)
        self.pem, self.key = self.at("ca.pem"), self.at("ca.key")
        openssl("req", "-x509", *EC, "-keyout", self.key, "-out", self.pem, "-subj", f"/CN={name}")

    def at(self, name):
        return os.path.join(self.folder, name)

    def issue(self, name):
        """(certificate file, key file)"""
        pem, key, csr, ext = (self.at(f"{name}.{end}") for end in ("pem", "key", "csr", "ext"))
        with open(ext, "w", encoding="ascii") as f:
            f.write("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl("req", *EC, "-keyout", key, "-out", csr, "-subj", f"/CN={name}")
        signer = ["-CA", self.pem, "-CAkey", self.key, "-CAcreateserial"]
        openssl("x509", "-req", "-in", csr, *signer, "-extfile", ext, "-out", pem)
        return pem, key


def replace(to, source):
    """Put a file in the place of another at once, as certificate managers do."""
    shutil.copy(source, to + ".new")
    os.rename(to + ".new", to)
