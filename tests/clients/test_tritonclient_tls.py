"""tritonclient, sync and aio, over TLS and mutual TLS; restricted groups with their header."""

from pathlib import Path

import pytest
from tests.support.certificates import Authority
from tests.support.fixture_models import write_simple
from tests.support.server_process import served
from tests.support.triton_clients import FACES, simple_inputs, triton_client
from tritonclient.utils import InferenceServerException


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_simple(tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.parametrize("face", FACES)
def test_tls_and_restricted_groups(face: str, tmp_path: Path, repository: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    flags = (
        "--grpc-use-ssl=true",
        f"--grpc-server-cert={pair.certificate}",
        f"--grpc-server-key={pair.key}",
        "--grpc-restricted-protocol=inference,model-repository:admin=s3cret",
    )
    header = {"triton-grpc-protocol-admin": "s3cret"}
    tls = {"ssl": True, "root_certificates": str(authority.certificate)}
    with served(repository, *flags) as server, triton_client(face, server.grpc, **tls) as client:
        assert client.is_server_live()
        result = client.infer("simple", simple_inputs(), headers=header)
        assert list(result.as_numpy("OUTPUT0")[0]) == [number + 1 for number in range(16)]
        assert client.get_model_repository_index(headers=header).models[0].name == "simple"
        with pytest.raises(InferenceServerException) as caught:
            client.infer("simple", simple_inputs())
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    assert caught.value.message() == (
        "This protocol is restricted, expecting header 'triton-grpc-protocol-admin'"
    )


@pytest.mark.parametrize("face", FACES)
def test_mutual_tls(face: str, tmp_path: Path, repository: Path) -> None:
    authority = Authority(tmp_path)
    pair, own = authority.issue("server"), authority.issue("client")
    flags = (
        "--grpc-use-ssl=true",
        "--grpc-use-ssl-mutual=true",
        f"--grpc-server-cert={pair.certificate}",
        f"--grpc-server-key={pair.key}",
        f"--grpc-root-cert={authority.certificate}",
    )
    tls = {"ssl": True, "root_certificates": str(authority.certificate)}
    mutual = {"private_key": str(own.key), "certificate_chain": str(own.certificate)}
    with served(repository, *flags) as server:
        with triton_client(face, server.grpc, **tls, **mutual) as client:
            result = client.infer("simple", simple_inputs())
            assert result.as_numpy("OUTPUT1").shape == (1, 16)
        with triton_client(face, server.grpc, **tls) as client:
            with pytest.raises(InferenceServerException) as caught:
                client.infer("simple", simple_inputs())
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
