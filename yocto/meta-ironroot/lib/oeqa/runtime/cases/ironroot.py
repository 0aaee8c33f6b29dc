#
# SPDX-License-Identifier: Apache-2.0
#
"""The agent on a running image: bitbake ironroot-image-gateway -c testimage, with TEST_SUITES:append = " ironroot"."""

from oeqa.core.decorator.data import skipIfNotFeature
from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage


class IronrootTest(OERuntimeTestCase):
    """What is true of each device, with or without a server."""

    def run_on_target(self, command):
        """The command's output; the test fails if the command does."""
        status, output = self.target.run(command)
        self.assertEqual(status, 0, msg='%s: %s' % (command, output))
        return output

    @OETestDepends(['ssh.SSHTest.test_ssh'])
    @OEHasPackage(['ironroot-agent'])
    def test_configuration_is_in_order(self):
        """The image's own agent.conf is one that the agent takes."""
        self.run_on_target('ironroot-agent validate -syntaxOnly -config /etc/ironroot/agent.conf')

    @OETestDepends(['ironroot.IronrootTest.test_configuration_is_in_order'])
    @skipIfNotFeature('systemd', 'The agent is started by systemd')
    def test_agent_runs_as_its_own_user(self):
        """No capability, no root; the chip by its group."""
        self.run_on_target('systemctl is-enabled ironroot-agent')
        pid = self.run_on_target('systemctl show -p MainPID --value ironroot-agent').strip()
        status = self.run_on_target('cat /proc/%s/status' % pid)
        self.assertNotIn('Uid:\t0', status)
        self.assertIn('CapEff:\t0000000000000000', status)

    @OETestDepends(['ssh.SSHTest.test_ssh'])
    @OEHasPackage(['ironroot-agent'])
    def test_chip_names_the_device(self):
        """A row that "ironroot-server device import" takes."""
        self.run_on_target('test -c /dev/tpmrm0')
        row = self.run_on_target('ironroot-agent tpm show -config /etc/ironroot/agent.conf -output csv')
        self.assertRegex(row, r'(?m)^[0-9a-f]{64},')

    @OETestDepends(['ssh.SSHTest.test_ssh'])
    @OEHasPackage(['ironroot-agent-manifest'])
    def test_first_boot_leaves_the_row_for_the_manifest(self):
        """The factory reads it from the console, the journal or the file."""
        row = self.run_on_target('cat /var/lib/ironroot-manifest/device.csv')
        self.assertRegex(row, r'(?m)^[0-9a-f]{64},')

    @OETestDepends(['ssh.SSHTest.test_ssh'])
    @OEHasPackage(['ironroot-agent'])
    def test_root_is_read_only_and_state_is_kept(self):
        """What the agent must not change, and where it writes."""
        status, _ = self.target.run('touch /usr/bin/x')
        self.assertNotEqual(status, 0)
        self.run_on_target('test -d /var/lib/ironroot-agent')
