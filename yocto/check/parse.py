"""Parses each recipe of the layer with BitBake's own parser (PyPI: bitbake-setup), and asks what an image would be told.

The classes of OpenEmbedded-Core are not there: of those that the layer names, the functions and variables that its recipes use
are stood in for below. What is checked is ours: syntax, inherit and require, overrides, and the values that decide what is built.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import types

# BitBake imports its hash server's client; parsing needs none.
for module in ("hashserv", "hashserv.client"):
    sys.modules[module] = types.ModuleType(module)

import bb.data  # noqa: E402
import bb.event  # noqa: E402
import bb.parse  # noqa: E402
import bb.utils  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
LAYER = os.path.join(os.path.dirname(HERE), "meta-ironroot")

# Classes that recipes inherit, and what they give that recipes use.
CLASSES = {
    "base": "",
    "cargo": 'BUILD_MODE = "--release"\nBUILD_DIR = "release"\nCARGO_BUILD_FLAGS = "-v --frozen ${BUILD_MODE}"\n',
    "cargo-update-recipe-crates": "",
    "core-image": "",
    "features_check": "",
    "packagegroup": "",
    "pkgconfig": "",
    "systemd": "",
    "useradd": "",
}

# Of bitbake.conf: what names the places of a build.
CONFIGURATION = {
    "DISTRO_FEATURES": "systemd ironroot",
    "DISTROOVERRIDES": "df-ironroot",
    "FILE_DIRNAME": "${@os.path.dirname(d.getVar('FILE', False))}",
    "THISDIR": "${@os.path.dirname(d.getVar('FILE'))}",
    "PN": "${@bb.parse.vars_from_file(d.getVar('FILE', False), d)[0] or 'defaultpkgname'}",
    "BPN": "${PN}",
    "PACKAGES": "${PN}",
    "TARGET_ARCH": "x86_64",
    "bindir": "/usr/bin",
    "localstatedir": "/var",
    "nonarch_libdir": "/usr/lib",
    "sysconfdir": "/etc",
    "systemd_system_unitdir": "/usr/lib/systemd/system",
    "SERIAL_CONSOLES": "115200;ttyS0 9600;ttyS1",
    # What a machine's configuration says with "?=", which is read before every recipe.
    "WKS_FILE": "machine.wks",
    "OVERRIDES": "class-target:pn-${PN}:${DISTROOVERRIDES}",
}


def configuration(stubs):
    """The data that each recipe is parsed over: the stubs, bitbake.conf's names, the layer's own layer.conf."""
    data = bb.data.init()
    data.setVar("BBPATH", stubs)
    data.setVar("LAYERDIR", LAYER)
    data.setVar("__bbclasstype", "recipe")
    for name, value in CONFIGURATION.items():
        data.setVar(name, value)
    with open(os.path.join(LAYER, "conf", "layer.conf"), encoding="utf-8") as layer:
        # addpylib is a directive of configuration files that a full BitBake runs.
        text = "".join(line for line in layer if not line.startswith("addpylib"))
    copy = os.path.join(stubs, "conf", "layer.conf")
    os.makedirs(os.path.dirname(copy))
    with open(copy, "w", encoding="utf-8") as file:
        file.write(text)
    data = bb.parse.handle(copy, data, True)
    data.expandVarref("LAYERDIR")
    data.delVar("LAYERDIR")
    return data


def parsed(data, path):
    """The recipe's final data."""
    recipe = bb.data.createCopy(data)
    recipe.setVar("FILE", path)
    bb.parse.handle(path, recipe, True)
    bb.data.expandKeys(recipe)
    return recipe


def recipes():
    """Each .bb of the layer."""
    for directory, _, files in os.walk(LAYER):
        for name in sorted(files):
            if name.endswith(".bb"):
                yield os.path.join(directory, name)


def files_of(recipe):
    """The names of file:// in SRC_URI."""
    return [uri[len("file://"):] for uri in recipe.getVar("SRC_URI").split() if uri.startswith("file://")]


def check_file_is_there(path, recipe):
    """What file:// names must lie where FILESPATH looks."""
    for name in files_of(recipe):
        if not os.path.exists(os.path.join(os.path.dirname(path), "files", name)):
            yield "SRC_URI names %s, which is not in files/" % name


def check_program(path, recipe):
    """A recipe of a program builds that program, with every crate of the lock, for a fixed user, with a unit that exists."""
    name = recipe.getVar("PN")
    if not recipe.getVar("CARGO_BUILD_FLAGS").endswith(" -p " + name):
        yield "builds %r" % recipe.getVar("CARGO_BUILD_FLAGS")
    crates = [uri for uri in recipe.getVar("SRC_URI").split() if uri.startswith("crate://")]
    for uri in crates:
        crate, version = uri.split("/")[-2:]
        if not recipe.getVarFlag("SRC_URI", "%s-%s.sha256sum" % (crate, version)):
            yield "%s has no checksum" % uri
    if len(crates) < 100:
        yield "only %d crates" % len(crates)
    user = recipe.getVar("USERADD_PARAM:" + name)
    if "--uid 79" not in user or not user.endswith(" " + name):
        yield "the user is %r" % user
    unit = os.path.join(LAYER, "..", "..", name.split("-")[1], "dist", recipe.getVar("SYSTEMD_SERVICE:" + name))
    if not os.path.exists(unit):
        yield "%s is not there" % unit
    head = subprocess.run(["git", "-C", LAYER, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    if recipe.getVar("SRCREV") != head.stdout.strip():
        yield "builds revision %r" % recipe.getVar("SRCREV")


def check_image(recipe):
    """What is kept has a partition, and somebody at the machine's first serial line sees the kernel and the device's row."""
    layout = recipe.getVar("WKS_FILE")
    if not os.path.exists(os.path.join(LAYER, "files", "wic", layout)):
        yield "the disk is laid out by the machine's %s, in which /var is not kept" % layout
    if not recipe.getVar("IRONROOT_KERNEL_CMDLINE").endswith(" console=tty0 console=ttyS1,9600 console=ttyS0,115200"):
        yield "the kernel is told %r" % recipe.getVar("IRONROOT_KERNEL_CMDLINE")


def check_kernel(data, stubs):
    """The fragment is asked for by the distribution feature, and by nothing else."""
    # An append is parsed behind its recipe: here behind an empty one.
    recipe = os.path.join(stubs, "linux-yocto_1.bb")
    shutil.copy(os.path.join(LAYER, "recipes-kernel", "linux", "linux-yocto_%.bbappend"), recipe)
    if "file://ironroot.scc" not in (parsed(data, recipe).getVar("SRC_URI") or ""):
        yield "DISTRO_FEATURES ironroot does not add ironroot.scc"
    plain = bb.data.createCopy(data)
    plain.setVar("DISTROOVERRIDES", "")
    if "ironroot.scc" in (parsed(plain, recipe).getVar("SRC_URI") or ""):
        yield "every kernel is changed by the layer's presence"


def check():
    """All mistakes."""
    with tempfile.TemporaryDirectory() as stubs:
        classes = os.path.join(stubs, "classes")
        os.makedirs(classes)
        for name, text in CLASSES.items():
            with open(os.path.join(classes, name + ".bbclass"), "w", encoding="utf-8") as file:
                file.write(text)
        data = configuration(stubs)
        count = 0
        for path in recipes():
            count += 1
            try:
                recipe = parsed(data, path)
                checks = list(check_file_is_there(path, recipe)) if recipe.getVar("SRC_URI") else []
                if os.path.basename(path).startswith("ironroot-image-"):
                    checks += check_image(recipe)
                if os.path.basename(path).endswith("_git.bb"):
                    checks += check_program(path, recipe)
            except Exception as error:  # pylint: disable=broad-except - each way to fail is a mistake in the recipe
                checks = [str(error)]
            for mistake in checks:
                yield "%s: %s" % (os.path.relpath(path, LAYER), mistake)
        for mistake in check_kernel(data, stubs):
            yield "linux-yocto_%%.bbappend: %s" % mistake
        print("%d recipes and a bbappend parsed" % count)


if __name__ == "__main__":
    FOUND = list(check())
    print("".join("yocto: %s\n" % mistake for mistake in FOUND), end="", file=sys.stderr)
    sys.exit(1 if FOUND else 0)
