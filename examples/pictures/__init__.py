"""A page on which you upload pictures. A worker makes a thumbnail and a large version of each; the page shows it live.

States of a picture          uploaded: the original is in the store, and a job for it will be in the queue
                             being resized: a worker has begun
                             ready: both versions are in the store
                             failed: with the reason; the original stays until you delete the picture
Rows (migrations/)           pictures: one for each picture. outbox: one for each job that is not in the queue yet
Files (store.py)             PICTURE/UPLOAD/original, PICTURE/UPLOAD/thumbnail.webp, PICTURE/UPLOAD/large.webp
Order of the writes          the original; then, in one transaction, its row and the outbox row; then the job; then the
                             outbox row is deleted. A kill between two writes leaves something that is done again: see
                             outbox.py, resize.py and sweep.py.

settings     what is set in the environment          server       the web server: pages, and the same as JSON
upload       reads a multipart body, with limits     negotiation  whether a client gets HTML or JSON
formats      the type of a file, from its bytes      versions     Pillow: the versions of one picture
pool         processes with limits for Pillow        resize       the job
database     connections and migrations              pictures     the rows
outbox       moves jobs from the outbox to the queue store        the files
on_resque    the queue of chapter 5                  on_rabbitmq  the same two functions on RabbitMQ
sweep        repairs what kills and outages leave
"""

ROLES = ("server", "worker")
SERVICES = ("valkey", "postgres")
ON_RABBITMQ = (("server", "worker"), ("rabbitmq", "postgres"))  # QUEUE=rabbitmq: the roles, and the services
OPEN = {"upload pictures": "files"}
