"""cachemw: transparent, verified image caching for WSGI services."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

SERVE = ["gunicorn>=23", "urllib3>=2.2.3"]
#: Has wheels for Linux on x86-64 only; elsewhere the tests that need it skip.
UWSGI = "pyuwsgi>=2.0.30; sys_platform == 'linux' and platform_machine == 'x86_64'"
#: Where they have wheels; elsewhere the tests that need them skip.
HUBS = ["eventlet>=0.36", "gevent>=24.2; platform_machine in 'x86_64 aarch64'"]
RICH = ["rich>=13"]
TEST = [
    *SERVE,
    *RICH,
    *HUBS,
    "hypothesis>=6.100",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "websocket-client>=1.8",
    "WebTest>=3.0.1",
    UWSGI,
]

setup(
    name="cachemw",
    version="0.1.0.dev0",
    description="WSGI middleware for transparent, verified image caching",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["wsgi", "cache", "middleware", "image", "glance", "paste"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Web Environment",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Internet :: WWW/HTTP :: WSGI :: Middleware",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["cachemw", "cachemw.*"]),
    package_data={
        "cachemw": ["py.typed"],
        "cachemw.web.dashboard": ["*.html", "*.css", "*.js", "*.svg"],
    },
    install_requires=["PasteDeploy>=3", "WebOb>=1.8.9,<2", "xattr>=1.1"],
    extras_require={
        "serve": SERVE,
        "rich": RICH,
        "test": TEST,
        "docs": ["sphinx>=8", "furo"],
        "lint": ["mypy>=1.13", "ruff>=0.8", "types-WebOb", "build", "twine"],
        "bench": [*SERVE, UWSGI],
    },
    entry_points={
        "paste.filter_factory": [
            "main = cachemw.web.filter:filter_factory",
            "cache = cachemw.web.filter:filter_factory",
            "manage = cachemw.web.manage:filter_factory",
        ],
        "paste.app_factory": [
            "images = cachemw.web.apps.images:app_factory",
            "manage = cachemw.web.manage:app_factory",
            "proxy = cachemw.web.apps.proxy:app_factory",
        ],
        "cachemw.drivers": [
            "sqlite = cachemw.drivers.sqlite:Driver",
            "xattr = cachemw.drivers.xattr:Driver",
        ],
        "console_scripts": ["cachemw = cachemw.commands:main"],
    },
)
