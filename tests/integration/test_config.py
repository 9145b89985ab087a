"""The command line and configuration: sources, expansion, errors with their places, exit
statuses."""

import re
import subprocess
import textwrap
import time

import pytest
import requests
import yaml

import otlp
from mill import BINARY, Mill, default_ports, forwarder, opens, query_node, run, wait_for
