import itertools
import time

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import StreamingHttpResponse
from django.urls import path

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="for tests")


def stream(numbers):
    for n in numbers:
        yield f'id: {n}\ndata: {{"n":{n}}}\n\n'
        time.sleep(0.1)


def answer(numbers):
    return StreamingHttpResponse(stream(numbers), content_type="text/event-stream", headers={"Cache-Control": "no-cache"})


urlpatterns = [
    path("finite", lambda request: answer(range(1, 6))),
    path("endless", lambda request: answer(itertools.count(1))),
]
application = get_wsgi_application()
